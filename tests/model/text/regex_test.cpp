#include "model/text/regex.hpp"

#include <gtest/gtest.h>

#include "model/error.hpp"
#include "model/text/regex_syntax.hpp"

namespace penstock::model {
namespace {

std::vector<std::string> matches(const std::string& pattern, const std::string& text) {
  std::vector<std::string> found;
  MatchBuffer buffer;
  Regex(pattern).for_each(text, buffer, [&](std::size_t begin, std::size_t end) {
    found.push_back(text.substr(begin, end - begin));
  });
  return found;
}
using Texts = std::vector<std::string>;

// The expected matches are Oniguruma's, by tokenizers.pre_tokenizers.Split(Regex(...), "removed",
// invert=True).
TEST(RegexTest, ClassesAreOniguruma) {
  EXPECT_EQ(matches(R"(\s)", "a\xC2\x85\xE1\xA0\x8E\xE2\x80\x8B\xE3\x80\x80\xE2\x80\xA8"),
            (Texts{"\xC2\x85", "\xE3\x80\x80", "\xE2\x80\xA8"}));  // not U+180E, not U+200B
  EXPECT_EQ(matches(R"([^\S\n]+)", " \n\t "), (Texts{" ", "\t "}));
  EXPECT_EQ(matches(R"(\p{L}+)", "a\xF0\x9E\x97\x90 \xE1\xB2\x8A"),  // U+1E5D0, U+1C8A: Unicode 16
            (Texts{"a\xF0\x9E\x97\x90", "\xE1\xB2\x8A"}));
  EXPECT_EQ(matches(R"(\P{L}+)", "ab1 2\xE1\xB2\x8A"), (Texts{"1 2"}));
  EXPECT_EQ(matches(R"([^\s\p{L}\p{N}]+)", "x--\xF0\x9E\x97\xB1!"), (Texts{"--", "!"}));  // U+1E5F1
  EXPECT_EQ(matches(R"(\d+)", "12\xD9\xA3\xC2\xB2"), (Texts{"12\xD9\xA3"}));
}

TEST(RegexTest, CaseIsIgnoredInTheGroupOnly) {
  EXPECT_EQ(matches(R"((?i:'s|'ll)|x)", "'S'\xC5\xBF'Ll X x"),  // U+017F is a small s
            (Texts{"'S", "'\xC5\xBF", "'Ll", "x"}));
}

TEST(RegexTest, CountsAndBracesAreOnigurumas) {
  EXPECT_EQ(matches(R"(a{,2}b)", "aab{"), (Texts{"aab"}));
  EXPECT_EQ(matches(R"(a{2}|{|})", "aa{a}"), (Texts{"aa", "{", "}"}));
  EXPECT_EQ(matches(R"([\s-]+|[+-])", "- -+"), (Texts{"- -", "+"}));
}

TEST(RegexTest, EmptyMatchesMoveOn) { EXPECT_EQ(matches("x*", "axb"), (Texts{"", "x", ""})); }

TEST(RegexTest, LinesEndAtNewlinesOnly) {
  EXPECT_EQ(matches(R"(.+$)", "a\rb\nc"), (Texts{"a\rb", "c"}));
}

TEST(RegexTest, RefusesWhatMayDiffer) {
  for (const char* pattern : {R"(\w)",      R"(\b)",          R"(\h)",
                              R"(\R)",      R"(\1)",          R"(\p{Han})",
                              R"([a[b]])",  R"([a&&b])",      R"((?i)a)",
                              R"((?m:a))",  R"(a{1,2}+)",     R"((?<n>a))",
                              R"([\P{L}])", R"((?i:\p{Lu}))", R"(\xE9)",
                              R"([)",       R"(\)",           R"(\p{L)",
                              R"((*UTF)a)", R"(a))",          R"((?i:(?:\p{Ll})))"}) {
    EXPECT_THROW(Regex{pattern}, ModelError) << pattern;
  }
}

TEST(RegexTest, LiteralsAreTakenByTheLetter) {
  MatchBuffer buffer;
  const std::string text = "a.b[c]\\d+ #-";
  const auto match = Regex::literal(text).find("xx" + text, 0, buffer);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->begin, 2u);
  EXPECT_EQ(match->end, 2 + text.size());
  EXPECT_FALSE(Regex::literal("a.c").find("abc", 0, buffer));
}

TEST(RegexTest, HopelessPatternsGiveUp) {
  MatchBuffer buffer;
  const std::string text(40, 'a');
  EXPECT_THROW((void)Regex("(a+)+[bc]").find(text, 0, buffer), ModelError);
}

}  // namespace
}  // namespace penstock::model
