#include "model/text/post_processor.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const json text_a = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};

json special(const std::string& name) { return {{"SpecialToken", {{"id", name}, {"type_id", 0}}}}; }

json processor(const json& single, const json& specials) {
  return {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", specials}};
}

std::string refusal(const json& part) {
  try {
    PostProcessor{part};
  } catch (const ModelError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(PostProcessorTest, PutsTokensAroundTheText) {
  const json specials = {{"<s>", {{"ids", {1}}}}, {"<e>", {{"ids", {2, 3}}}}};
  const PostProcessor both(processor({special("<s>"), text_a, special("<e>")}, specials));
  EXPECT_THAT(both.before(), ElementsAre(1));
  EXPECT_THAT(both.after(), ElementsAre(2, 3));
  const PostProcessor nested(json{
      {"type", "Sequence"},
      {"processors", {{{"type", "ByteLevel"}}, processor({special("<e>"), text_a}, specials)}}});
  EXPECT_THAT(nested.before(), ElementsAre(2, 3));
  EXPECT_THAT(nested.after(), IsEmpty());
  EXPECT_THAT(PostProcessor(nullptr).before(), IsEmpty());
}

// A token that is 64 ids, named 16 times, is a small file; a file may name it a million times.
TEST(PostProcessorTest, TheNumberOfTokensIsLimited) {
  const json specials = {{"x", {{"ids", std::vector<int>(64, 5)}}}, {"y", {{"ids", {6}}}}};
  json single = json::array();
  for (int i = 0; i < 16; ++i) single.push_back(special("x"));
  json most = single;
  most.push_back(text_a);
  EXPECT_EQ(PostProcessor(processor(most, specials)).before().size(), 1024u);
  single.push_back(special("y"));
  single.push_back(text_a);
  EXPECT_THAT(refusal(processor(single, specials)), HasSubstr("more than 1024 special tokens"));
  json behind = json::array({text_a});
  for (int i = 0; i < 17; ++i) behind.push_back(special("x"));
  EXPECT_THAT(refusal(processor(behind, specials)), HasSubstr("more than 1024 special tokens"));
}

TEST(PostProcessorTest, NamesWhatIsWrong) {
  const json specials = {{"<s>", {{"ids", {-1}}}}};
  EXPECT_THAT(refusal(processor({special("<s>"), text_a}, specials)),
              HasSubstr("gives '<s>' the id -1, not an integer"));
  EXPECT_THAT(refusal(processor({special("<t>"), text_a}, specials)), HasSubstr("has no '<t>'"));
  EXPECT_THAT(refusal(processor({text_a, text_a}, specials)), HasSubstr("more texts than one"));
  EXPECT_THAT(refusal(processor(json::array(), specials)), HasSubstr("has no text"));
  EXPECT_THAT(refusal(json{{"type", "Bert\nProcessing"}}),
              HasSubstr("the post_processor 'Bert\\x0aProcessing' is not supported"));
}

}  // namespace
}  // namespace penstock::model
