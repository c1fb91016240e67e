#include "model/text/decoder.hpp"

#include <gtest/gtest.h>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;
using Tokens = std::vector<std::string>;

std::string decoded(const json& part, const Tokens& tokens) {
  const Decoder decoder(part);
  std::string text;
  const auto chain = decoder.start(text);
  for (const std::string& token : tokens) chain->push(token, true);
  chain->finish();
  return text;
}

json fused(const json& part) {
  return {{"type", "Sequence"}, {"decoders", {{{"type", "Fuse"}}, part}}};
}

const Tokens tokens = {"___a_b__", "_a", "ba", "b__"};

// The expected texts are the tokenizers library's (decoders.*.decode).
TEST(DecoderTest, StripsTokensOrTheWhole) {
  const json strip = {{"type", "Strip"}, {"content", "_"}, {"start", 2u}, {"stop", 1u}};
  EXPECT_EQ(decoded(strip, tokens), "_a_b_abab_");
  EXPECT_EQ(decoded(fused(strip), tokens), "_a_b___abab_");
}

TEST(DecoderTest, MetaspaceDropsTheFirstTokensBlanks) {
  json meta = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "always"}};
  EXPECT_EQ(decoded(meta, tokens), "ab abab  ");
  EXPECT_EQ(decoded(fused(meta), tokens), "ababab");
  meta["prepend_scheme"] = "never";
  EXPECT_EQ(decoded(meta, tokens), "   a b   abab  ");
}

TEST(DecoderTest, ReplacesInTokensOrInTheWhole) {
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", "ab"}}}, {"content", "X"}};
  EXPECT_EQ(decoded(replace, tokens), "___a_b___abab__");
  EXPECT_EQ(decoded(fused(replace), tokens), "___a_b___XX__");
}

TEST(DecoderTest, ByteTokensAreTextOrOneReplacementEach) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(decoded({{"type", "ByteFallback"}}, {"a", "<0xC3>", "<0xA9>", "b", "<0xC3>", "<0x41>",
                                                 "<0xc3>", "<0x+9>", "<0xG0>"}),
            "a\xC3\xA9"
            "b" +
                r + r + r + r + "<0xG0>");
}

TEST(DecoderTest, TokensOutsideOfTheByteAlphabetAreText) {
  EXPECT_EQ(decoded({{"type", "ByteLevel"}}, {"\xC3\x83",
                                              "\xC2\xA9"
                                              "a",
                                              "\xE6\x97\xA5", "\xC4\xA0x"}),
            "\xC3\xA9"
            "a\xE6\x97\xA5 x");
}

TEST(DecoderTest, WithoutADecoderBlanksAreBetweenTokens) {
  EXPECT_EQ(decoded(nullptr, {"a", "", "b"}), "a  b");
  EXPECT_EQ(decoded({{"type", "Sequence"}, {"decoders", json::array()}}, {"a", "b"}), "ab");
}

TEST(DecoderTest, WhatIsCertainIsGivenAtOnce) {
  const Decoder decoder(json{{"type", "ByteLevel"}});
  std::string text;
  const auto chain = decoder.start(text);
  chain->push("ab", true);
  EXPECT_EQ(text, "ab");
  chain->push("c\xC3\xB0", true);  // the byte F0
  EXPECT_EQ(text, "abc");
  chain->push("d", true);  // F0 was no character
  EXPECT_EQ(text,
            "abc\xEF\xBF\xBD"
            "d");
}

// One Replace, 10,000 bytes for each token of one byte: six are within 64 times the tokens and
// 64 KiB, the seventh is not.
TEST(DecoderTest, ReplaceMayNotMultiplyTheTokens) {
  const json wide = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(10'000, 'x')}};
  EXPECT_EQ(decoded(wide, Tokens(6, "a")).size(), 60'000u);
  EXPECT_THROW(decoded(wide, Tokens(7, "a")), ModelError);
  EXPECT_EQ(decoded(fused(wide), Tokens(6, "a")).size(), 60'000u);
  EXPECT_THROW(decoded(fused(wide), Tokens(7, "a")), ModelError);

  const Decoder decoder(wide);  // token by token it is the same
  std::string text;
  const auto chain = decoder.start(text);
  for (int i = 0; i < 6; ++i) chain->push("a", true);
  EXPECT_THROW(chain->push("a", true), ModelError);
  EXPECT_EQ(text.size(), 60'000u);
}

TEST(DecoderTest, TheLimitOfReplaceGrowsWithTheTokens) {
  const json replace = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(50, 'x')}};
  EXPECT_EQ(decoded(replace, Tokens(10'000, "a")).size(), 500'000u);
}

TEST(DecoderTest, ReplacesOneBehindAnotherAreRefusedBeforeTheyTakeMemory) {
  json parts = json::array();
  for (int i = 0; i < 12; ++i) {
    parts.push_back(json{
        {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(10, 'a')}});
  }
  const json bomb = {{"type", "Sequence"}, {"decoders", parts}};
  EXPECT_THROW(decoded(bomb, {"a"}), ModelError);
  EXPECT_EQ(decoded(bomb, {"b", "c"}), "bc");
}

TEST(DecoderTest, RefusesChainsItDoesNotKnow) {
  EXPECT_THROW(Decoder(fused({{"type", "ByteLevel"}})), ModelError);
  EXPECT_THROW(Decoder(fused({{"type", "ByteFallback"}})), ModelError);
  EXPECT_THROW(Decoder(json{{"type", "CTC"}}), ModelError);
  EXPECT_THROW(Decoder(json{{"type", "Strip"}, {"content", "ab"}, {"start", 1u}, {"stop", 0u}}),
               ModelError);
}

}  // namespace
}  // namespace penstock::model
