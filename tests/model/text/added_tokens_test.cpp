#include "model/text/added_tokens.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <random>
#include <set>

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

std::string refusal(const json& tokens, const Normalizer& normalizer) {
  try {
    AddedTokens(tokens, {}, normalizer);
  } catch (const ModelError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(AddedTokensTest, TokensAbove4KibAreRefused) {
  const auto one = [](std::size_t size, const std::string& flag = "") {
    return json::array({token(0, std::string(size, 'a'), flag)});
  };
  EXPECT_EQ(refusal(one(4096), Normalizer()), "accepted");
  EXPECT_EQ(refusal(one(4097), Normalizer()),
            "tokenizer: an added token has 4097 bytes; at most 4096 are allowed");
  // What is searched for is the normalized token.
  const Normalizer wider(
      json{{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "bb"}});
  EXPECT_EQ(refusal(one(2048, "normalized"), wider), "accepted");
  EXPECT_EQ(refusal(one(2049, "normalized"), wider),
            "tokenizer: an added token has 4098 bytes; at most 4096 are allowed");
  EXPECT_EQ(refusal(one(2049), wider), "accepted");
}

TEST(AddedTokensTest, MessagesShowTokensAsFitForATerminal) {
  const json tokens = json::array({token(5, "a\n\x1b[2J" + std::string(1000, 'x'))});
  const std::string message = refusal(tokens, Normalizer());
  EXPECT_THAT(message, testing::StartsWith("tokenizer: added token 'a\\x0a\\x1b[2Jxxx"));
  EXPECT_LT(message.size(), 300u);
}

// The definition: at the first place where any entry begins, the longest one.
StringSet::Match by_definition(const std::vector<StringSet::Entry>& entries, std::string_view text,
                               std::size_t from) {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    StringSet::Match best{begin, begin, -1};
    for (const StringSet::Entry& entry : entries) {
      if (text.substr(begin).starts_with(entry.text) && entry.text.size() > best.end - begin) {
        best = {begin, begin + entry.text.size(), entry.id};
      }
    }
    if (best.id >= 0) return best;
  }
  return {text.size(), text.size(), -1};
}

TEST(StringSetTest, FindsWhatTheDefinitionFinds) {
  std::mt19937 random(7);
  const std::string letters("ab\x00\x7f\x80\xff", 6);  // bytes above 7F are negative as char
  const auto word = [&](std::size_t longest) {
    std::string text(1 + random() % longest, ' ');
    for (char& c : text) c = letters[random() % letters.size()];
    return text;
  };
  std::size_t found = 0;
  for (const std::size_t count : {0u, 1u, 2u, 10u, 100u, 1000u}) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      std::set<std::string> texts;
      while (texts.size() < count) {
        std::string text = word(7);
        if (!texts.empty() && random() % 2 == 0) {  // some entries are the beginnings of others
          text = *std::next(texts.begin(), static_cast<long>(random() % texts.size())) + text;
        }
        texts.insert(text);
      }
      std::vector<StringSet::Entry> entries;
      for (const std::string& text : texts) {
        entries.push_back({text, static_cast<std::int32_t>(entries.size())});
      }
      std::shuffle(entries.begin(), entries.end(), random);
      const StringSet set(entries);
      EXPECT_EQ(set.empty(), count == 0);
      for (int i = 0; i < 10; ++i) {
        const std::string text = word(60);
        const std::size_t from = random() % (text.size() + 1);
        const StringSet::Match got = set.find(text, from);
        const StringSet::Match expected = by_definition(entries, text, from);
        ASSERT_EQ(got.id, expected.id);
        if (got.id < 0) continue;
        ++found;
        ASSERT_EQ(got.begin, expected.begin);
        ASSERT_EQ(got.end, expected.end);
      }
    }
  }
  EXPECT_GT(found, 500u);
}

TEST(StringSetTest, NestedBeginnings) {
  std::vector<StringSet::Entry> entries;
  for (std::int32_t size = 1; size <= 200; ++size) {
    if (size % 3 == 0) entries.push_back({std::string(static_cast<std::size_t>(size), 'a'), size});
  }
  const StringSet set(entries);
  for (std::size_t size = 0; size < 250; ++size) {
    const std::string text = "b" + std::string(size, 'a') + "b";
    const std::size_t expected = std::min<std::size_t>(size - size % 3, 198);
    const StringSet::Match match = set.find(text, 0);
    ASSERT_EQ(match.id, expected == 0 ? -1 : static_cast<std::int32_t>(expected));
    if (expected > 0) {
      ASSERT_EQ(match.begin, 1u);
      ASSERT_EQ(match.end, 1 + expected);
    }
  }
}

}  // namespace
}  // namespace penstock::model
