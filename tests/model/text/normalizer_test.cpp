#include "model/text/normalizer.hpp"

#include <gtest/gtest.h>

namespace penstock::model {
namespace {

using nlohmann::json;

std::string normalized(const json& part, const std::string& text) {
  MatchBuffer buffer;
  return Normalizer(part).apply(text, rewrite_limit(text.size()), buffer);
}

// The expected texts are the tokenizers library's (normalize_str).
TEST(NormalizerTest, NormalizesAsUnicodeSays) {
  const json nfc = {{"type", "NFC"}};
  EXPECT_EQ(normalized(nfc, "e\xCC\xA3\xCC\x81"), "\xE1\xBA\xB9\xCC\x81");  // ẹ and an acute
  EXPECT_EQ(normalized(nfc, "plain"), "plain");
  EXPECT_EQ(normalized({{"type", "NFD"}}, "\xE1\xB9\xA9\xEA\xB0\x80"),  // ṩ, a Hangul syllable
            "s\xCC\xA3\xCC\x87\xE1\x84\x80\xE1\x85\xA1");
  EXPECT_EQ(normalized({{"type", "NFKC"}}, "\xEF\xAC\x81 \xE2\x91\xA0\xCC\x81\xC3\xA9"),
            "fi 1\xCC\x81\xC3\xA9");
}

TEST(NormalizerTest, MarksAfterUnicode9StayWhereTheyAre) {
  const std::string text = "a\xE1\xB7\xB6\xCC\xA3";  // U+1DF6 (Unicode 10) and a dot below
  EXPECT_EQ(normalized({{"type", "NFC"}}, text), text);
}

TEST(NormalizerTest, RunsTheOtherSteps) {
  EXPECT_EQ(normalized({{"type", "Lowercase"}}, "\xC3\x80\xC4\xB0\xE1\xBA\x9E\xCE\xA3"),
            "\xC3\xA0i\xCC\x87\xC3\x9F\xCF\x83");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}},
                       "\xE3\x80\x80 a b\xC2\x85"),
            "a b");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}, "  "), "");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"Regex", "\\s+"}}}, {"content", "_"}},
                       "a  b\tc"),
            "a_b_c");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"String", "aa"}}}, {"content", "b"}},
                       "aaaa a"),
            "bb a");
  const json prepend = {{"type", "Prepend"}, {"prepend", "_"}};
  EXPECT_EQ(normalized(prepend, "a"), "_a");
  EXPECT_EQ(normalized(prepend, ""), "");
  EXPECT_EQ(normalized({{"type", "Sequence"}, {"normalizers", {prepend, prepend}}}, "a"), "__a");
}

}  // namespace
}  // namespace penstock::model
