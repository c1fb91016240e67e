#include "model/text/pre_tokenizer.hpp"

#include <gtest/gtest.h>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;
using Words = std::vector<std::string>;

Words words_of(const json& part, const std::string& text, bool at_start = true) {
  Words words;
  auto take = [&](std::string_view word) { words.emplace_back(word); };
  MatchBuffer buffer;
  PreTokenizer(part).run(text, at_start, buffer, WordSink(take));
  return words;
}

json split(const std::string& behavior, bool invert) {
  return {{"type", "Split"},
          {"pattern", {{"String", "-"}}},
          {"behavior", behavior},
          {"invert", invert}};
}

// The expected words are the tokenizers library's (pre_tokenize_str).
TEST(PreTokenizerTest, SplitsWithEveryBehavior) {
  const std::string text = "-The-final--countdown-";
  EXPECT_EQ(words_of(split("Removed", false), text), (Words{"The", "final", "countdown"}));
  EXPECT_EQ(words_of(split("Removed", true), text), (Words{"-", "-", "-", "-", "-"}));
  const Words isolated = {"-", "The", "-", "final", "-", "-", "countdown", "-"};
  EXPECT_EQ(words_of(split("Isolated", false), text), isolated);
  EXPECT_EQ(words_of(split("Isolated", true), text), isolated);
  const Words with_previous = {"-", "The-", "final-", "-", "countdown-"};
  const Words with_next = {"-The", "-final", "-", "-countdown", "-"};
  EXPECT_EQ(words_of(split("MergedWithPrevious", false), text), with_previous);
  EXPECT_EQ(words_of(split("MergedWithPrevious", true), text), with_next);
  EXPECT_EQ(words_of(split("MergedWithNext", false), text), with_next);
  EXPECT_EQ(words_of(split("MergedWithNext", true), text), with_previous);
  const Words contiguous = {"-", "The", "-", "final", "--", "countdown", "-"};
  EXPECT_EQ(words_of(split("Contiguous", false), text), contiguous);
  EXPECT_EQ(words_of(split("Contiguous", true), text), contiguous);
}

TEST(PreTokenizerTest, SplitsDigits) {
  const std::string text =
      "ab12\xD9\xA3"
      "c4";
  EXPECT_EQ(words_of({{"type", "Digits"}, {"individual_digits", false}}, text),
            (Words{"ab", "12\xD9\xA3", "c", "4"}));
  EXPECT_EQ(words_of({{"type", "Digits"}, {"individual_digits", true}}, text),
            (Words{"ab", "1", "2", "\xD9\xA3", "c", "4"}));
}

TEST(PreTokenizerTest, MetaspaceReplacesBlanks) {
  json meta = {
      {"type", "Metaspace"}, {"replacement", "\xE2\x96\x81"}, {"prepend_scheme", "always"}};
  EXPECT_EQ(words_of(meta, " Hey  friend"), (Words{"\xE2\x96\x81Hey", "\xE2\x96\x81",
                                                   "\xE2\x96\x81"
                                                   "friend"}));
  EXPECT_EQ(words_of(meta, "a", false), (Words{"\xE2\x96\x81"
                                               "a"}));
  meta["prepend_scheme"] = "first";
  EXPECT_EQ(words_of(meta, "a", true), (Words{"\xE2\x96\x81"
                                              "a"}));
  EXPECT_EQ(words_of(meta, "a", false), (Words{"a"}));
  meta["prepend_scheme"] = "never";
  EXPECT_EQ(words_of(meta, "Hey  friend"), (Words{"Hey", "\xE2\x96\x81",
                                                  "\xE2\x96\x81"
                                                  "friend"}));
  meta["split"] = false;
  EXPECT_EQ(words_of(meta, "a b"), (Words{"a\xE2\x96\x81"
                                          "b"}));
}

TEST(PreTokenizerTest, LaterStepsSeeTheByteAlphabet) {
  const json parts = {{"type", "Sequence"},
                      {"pretokenizers",
                       {{{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", true}},
                        {{"type", "Split"},
                         {"pattern", {{"Regex", "\xC4\xA0"}}},
                         {"behavior", "Removed"},
                         {"invert", false}}}}};
  EXPECT_EQ(words_of(parts, "a b\xC3\xA9 c"), (Words{"a", "b\xC3\x83\xC2\xA9", "c"}));
  EXPECT_FALSE(PreTokenizer(parts).gives_bytes());
}

TEST(PreTokenizerTest, OneStepOfAKindMayRewriteTheText) {
  const json level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const json meta = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "always"}};
  const auto sequence = [](const json& parts) {
    return json{{"type", "Sequence"}, {"pretokenizers", parts}};
  };
  EXPECT_NO_THROW(PreTokenizer(sequence({level, meta})));
  EXPECT_THROW(PreTokenizer(sequence({level, level})), ModelError);
  EXPECT_THROW(PreTokenizer(sequence({meta, meta})), ModelError);
  EXPECT_THROW(PreTokenizer(sequence({level, split("Removed", false), sequence({level})})),
               ModelError);
}

}  // namespace
}  // namespace penstock::model
