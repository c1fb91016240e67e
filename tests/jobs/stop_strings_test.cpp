#include "jobs/stop_strings.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace penstock::jobs {
namespace {

TEST(StopStrings, NothingToStopAt) {
  StopStrings stop({});
  EXPECT_FALSE(stop.push("abc"));
  EXPECT_FALSE(stop.push(""));
  EXPECT_FALSE(stop.push("def"));
  EXPECT_EQ(stop.text(), "abcdef");
  EXPECT_FALSE(stop.stopped());
}

TEST(StopStrings, CutsBeforeTheMatch) {
  StopStrings stop({"END"});
  EXPECT_FALSE(stop.push("say E"));
  EXPECT_FALSE(stop.push("N"));
  EXPECT_TRUE(stop.push("D of it"));
  EXPECT_EQ(stop.text(), "say ");
  EXPECT_TRUE(stop.push("more"));
  EXPECT_EQ(stop.take(), "say ");
}

TEST(StopStrings, EarliestStartWins) {
  StopStrings late_end({"bc", "abcd"});
  EXPECT_TRUE(late_end.push("xabcd"));
  EXPECT_EQ(late_end.text(), "x");
  // Token by token the shorter one is complete first.
  StopStrings pieces({"bc", "abcd"});
  EXPECT_FALSE(pieces.push("xab"));
  EXPECT_TRUE(pieces.push("c"));
  EXPECT_EQ(pieces.text(), "xa");
}

TEST(StopStrings, AtTheVeryStart) {
  StopStrings stop({"\n\n"});
  EXPECT_FALSE(stop.push("\n"));
  EXPECT_TRUE(stop.push("\n"));
  EXPECT_EQ(stop.text(), "");
}

TEST(StopStrings, OverlappingStarts) {
  StopStrings stop({"aab"});
  EXPECT_FALSE(stop.push("a"));
  EXPECT_FALSE(stop.push("aa"));
  EXPECT_TRUE(stop.push("b"));
  EXPECT_EQ(stop.text(), "a");
}

TEST(StopStrings, CharactersOfManyBytes) {
  StopStrings stop({"。"});
  EXPECT_TRUE(stop.push("はい。いいえ"));
  EXPECT_EQ(stop.text(), "はい");
}

// Against a search of the whole text after each piece.
TEST(StopStrings, AgreesWithTheSimpleSearch) {
  std::mt19937 random(1);
  const auto draw = [&](std::size_t most) { return random() % most; };
  const auto word = [&](std::size_t length) {
    std::string text;
    for (std::size_t i = 0; i < length; ++i) text += static_cast<char>('a' + draw(2));
    return text;
  };
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> strings;
    for (std::size_t i = 1 + draw(3); i > 0; --i) strings.push_back(word(1 + draw(6)));
    StopStrings stop(strings);
    std::string all;
    for (std::size_t i = draw(12); i > 0; --i) {
      const std::string piece = word(draw(5));
      all += piece;
      std::size_t cut = std::string::npos;
      for (const std::string& text : strings) cut = std::min(cut, all.find(text));
      ASSERT_EQ(stop.push(piece), cut != std::string::npos);
      ASSERT_EQ(stop.text(), all.substr(0, cut));
      if (cut != std::string::npos) break;
    }
  }
}

}  // namespace
}  // namespace penstock::jobs
