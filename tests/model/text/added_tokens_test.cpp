#include "model/text/added_tokens.hpp"

#include <gtest/gtest.h>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;

json token(std::int32_t id, const std::string& content, const std::string& flag = "") {
  json result = {
      {"id", id},        {"content", content}, {"special", false},   {"single_word", false},
      {"lstrip", false}, {"rstrip", false},    {"normalized", false}};
  if (!flag.empty()) result[flag] = true;
  return result;
}

// "a [3] b": texts as they are, tokens as ids in brackets.
std::string split(const AddedTokens& added, const std::string& text, bool normalized = false) {
  std::string result;
  added.split(
      text, normalized,
      [&](std::size_t begin, std::size_t end) { result += text.substr(begin, end - begin); },
      [&](std::int32_t id) { result += '[' + std::to_string(id) + ']'; });
  return result;
}

TEST(AddedTokensTest, TheLeftmostLongestMatchHolds) {
  const AddedTokens added({token(0, "ab"), token(1, "abcd"), token(2, "bcde"), token(3, "c")}, {},
                          Normalizer());
  EXPECT_EQ(split(added, "abcde"), "[1]e");
  EXPECT_EQ(split(added, "abcx bcde"), "[0][3]x [2]");
  EXPECT_EQ(split(added, ""), "");
}

TEST(AddedTokensTest, FlagsStripBlanksAndAskForWords) {
  const AddedTokens added({token(0, "L", "lstrip"), token(1, "R", "rstrip"),
                           token(2, "one", "single_word"), token(3, "n", "normalized")},
                          {}, Normalizer());
  EXPECT_EQ(split(added, "a \xE3\x80\x80L b"), "a[0] b");
  EXPECT_EQ(split(added, "a R \n\tb"), "a [1]b");
  EXPECT_EQ(split(added, "R   L"), "[1][0]");
  EXPECT_EQ(split(added, "one none one2 _one \xC3\xA9one one."),
            "[2] none one2 _one \xC3\xA9one [2].");
  EXPECT_EQ(split(added, "xnx"), "xnx");
  EXPECT_EQ(split(added, "xnx", true), "x[3]x");
}

TEST(AddedTokensTest, NormalizedTokensAreFoundInNormalizedText) {
  const Normalizer lower(json{{"type", "Lowercase"}});
  const AddedTokens added(json::array({token(0, "Day", "normalized")}), {}, lower);
  EXPECT_EQ(split(added, "a day", true), "a [0]");
  EXPECT_EQ(added.tokens().at(0).shown, "day");
}

TEST(AddedTokensTest, IdsAreTheVocabularysOrTheNext) {
  const StringMap vocabulary = {{"x", 0}, {"y", 1}};
  const AddedTokens added({token(1, "y"), token(2, "z"), token(3, "w")}, vocabulary, Normalizer());
  EXPECT_EQ(added.ids().at("y"), 1);
  EXPECT_EQ(added.ids().at("w"), 3);
  EXPECT_THROW(AddedTokens(json::array({token(5, "z")}), vocabulary, Normalizer()), ModelError);
  EXPECT_THROW(AddedTokens(json::array({token(-1, "z")}), vocabulary, Normalizer()), ModelError);
  EXPECT_THROW(AddedTokens(json::object(), vocabulary, Normalizer()), ModelError);
}

}  // namespace
}  // namespace penstock::model
