#include "model/text/normalizer.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "model/error.hpp"

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

json replace(const std::string& text, const std::string& content) {
  return {{"type", "Replace"}, {"pattern", {{"String", text}}}, {"content", content}};
}

std::size_t peak_memory_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) << 10;
}

// Each step makes ten times as much of the text: a petabyte in all.
TEST(NormalizerTest, StepsThatMultiplyATextAreRefused) {
  json steps = json::array();
  for (int i = 0; i < 12; ++i) steps.push_back(replace("a", std::string(10, 'a')));
  const json bomb = {{"type", "Sequence"}, {"normalizers", steps}};
  const std::size_t before = peak_memory_bytes();
  EXPECT_THROW(normalized(bomb, std::string(1000, 'a')), ModelError);
  EXPECT_LT(peak_memory_bytes() - before, 8u << 20);
  EXPECT_EQ(normalized(bomb, "b"), "b");

  json doubled = json::array();  // the same by its own output put in front
  for (int i = 0; i < 30; ++i) {
    doubled.push_back(json{{"type", "Prepend"}, {"prepend", std::string(4096, 'p')}});
  }
  EXPECT_THROW(normalized({{"type", "Sequence"}, {"normalizers", doubled}}, "a"), ModelError);
}

TEST(NormalizerTest, TheLimitIsThatOfTheCaller) {
  MatchBuffer buffer;
  const Normalizer wider(replace("a", "aaaa"));
  EXPECT_EQ(wider.apply("xaay", 10, buffer), "xaaaaaaaay");
  EXPECT_THROW(wider.apply("xaay", 9, buffer), ModelError);
  const Normalizer prepend(json{{"type", "Prepend"}, {"prepend", "__"}});
  EXPECT_EQ(prepend.apply("ab", 4, buffer), "__ab");
  EXPECT_THROW(prepend.apply("ab", 3, buffer), ModelError);
}

TEST(NormalizerTest, TooManyStepsAreRefused) {
  json steps = json::array();
  for (int i = 0; i < 64; ++i) steps.push_back(json{{"type", "Lowercase"}});
  EXPECT_NO_THROW(Normalizer(json{{"type", "Sequence"}, {"normalizers", steps}}));
  steps.push_back(json{{"type", "Lowercase"}});
  EXPECT_THROW(Normalizer(json{{"type", "Sequence"}, {"normalizers", steps}}), ModelError);
}

}  // namespace
}  // namespace penstock::model
