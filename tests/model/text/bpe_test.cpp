#include "model/text/bpe.hpp"

#include <gtest/gtest.h>

#include <random>

namespace penstock::model {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

Ids encode(const Bpe& bpe, std::string_view word) {
  BpeScratch scratch;
  Ids ids;
  bpe.encode(word, scratch, ids);
  return ids;
}

// The definition: while any pair of neighbours merges, the pair of the lowest rank does, the
// leftmost one of those.
std::vector<std::string> by_definition(
    const std::vector<std::pair<std::string, std::string>>& merges, const std::string& word) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  for (;;) {
    std::size_t best_rank = merges.size();
    std::size_t best = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = std::find(merges.begin(), merges.end(), std::pair(parts[i], parts[i + 1]));
      const auto rank = static_cast<std::size_t>(found - merges.begin());
      if (rank < best_rank) {
        best_rank = rank;
        best = i;
      }
    }
    if (best_rank == merges.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(BpeTest, MergesAsDefinedInShortAndLongWords) {
  std::mt19937 random(1);
  const auto below = [&](std::size_t limit) { return random() % limit; };
  std::vector<std::string> tokens = {"a", "b", "c", "d"};
  std::vector<std::pair<std::string, std::string>> merges;
  while (merges.size() < 120) {
    const std::string left = tokens[below(tokens.size())];
    const std::string right = tokens[below(tokens.size())];
    if (left.size() + right.size() > 9) continue;
    if (std::find(merges.begin(), merges.end(), std::pair(left, right)) != merges.end()) continue;
    merges.emplace_back(left, right);
    if (std::find(tokens.begin(), tokens.end(), left + right) == tokens.end()) {
      tokens.push_back(left + right);
    }
  }
  json model = {{"type", "BPE"}, {"vocab", json::object()}, {"merges", merges}};
  for (std::size_t i = 0; i < tokens.size(); ++i) model["vocab"][tokens[i]] = i;
  const Bpe bpe(model, false);
  for (const std::size_t size : {1u, 2u, 7u, 30u, 47u, 48u, 49u, 50u, 200u}) {
    for (int repeat = 0; repeat < 30; ++repeat) {
      std::string word;
      while (word.size() < size) word += "abcd"[below(4)];
      Ids expected;
      for (const std::string& part : by_definition(merges, word)) {
        expected.push_back(model["vocab"][part]);
      }
      ASSERT_EQ(encode(bpe, word), expected) << word;
    }
  }
}

TEST(BpeTest, TheLastOfEqualMergesHolds) {
  const Bpe bpe({{"type", "BPE"},
                 {"vocab", {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}, {"bc", 4}}},
                 {"merges", {"a b", "b c", "a b"}}},
                false);
  EXPECT_EQ(encode(bpe, "abc"), (Ids{0, 4}));
}

// By hand from merge_word() of the reference.
TEST(BpeTest, UnknownCharacters) {
  json model = {{"type", "BPE"},
                {"vocab", {{"a", 0}, {"?", 1}, {"<0xC3>", 2}, {"<0xA9>", 3}}},
                {"merges", json::array()}};
  EXPECT_EQ(encode(Bpe(model, false), "xay"), (Ids{0}));
  model["unk_token"] = "?";
  EXPECT_EQ(encode(Bpe(model, false), "xxay"), (Ids{1, 1, 0, 1}));
  model["fuse_unk"] = true;
  EXPECT_EQ(encode(Bpe(model, false), "xxay"), (Ids{1, 0, 1}));
  model["byte_fallback"] = true;
  EXPECT_EQ(encode(Bpe(model, false),
                   "\xC3\xA9"
                   "a"),
            (Ids{2, 3, 0}));
  EXPECT_EQ(encode(Bpe(model, false),
                   "x\xC3\xA9"
                   "a"),
            (Ids{2, 3, 1, 0}));  // held back
}

TEST(BpeTest, IgnoreMergesTakesWholeWords) {
  json model = {{"type", "BPE"},
                {"vocab",
                 {{"a", 0},
                  {"b", 1},
                  {"aba", 2},
                  {"\xC4\xA0"
                   "a",
                   3},
                  {"\xC4\xA0", 4}}},
                {"merges", json::array()},
                {"ignore_merges", true}};
  EXPECT_EQ(encode(Bpe(model, true), "aba"), (Ids{2}));
  EXPECT_EQ(encode(Bpe(model, true), " a"), (Ids{3}));
  EXPECT_EQ(encode(Bpe(model, true), " b"), (Ids{4, 1}));
  model["ignore_merges"] = false;
  EXPECT_EQ(encode(Bpe(model, true), "aba"), (Ids{0, 1, 0}));
}

}  // namespace
}  // namespace penstock::model
