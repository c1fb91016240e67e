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

TEST(DecoderTest, RefusesChainsItDoesNotKnow) {
  EXPECT_THROW(Decoder(fused({{"type", "ByteLevel"}})), ModelError);
  EXPECT_THROW(Decoder(fused({{"type", "ByteFallback"}})), ModelError);
  EXPECT_THROW(Decoder(json{{"type", "CTC"}}), ModelError);
  EXPECT_THROW(Decoder(json{{"type", "Strip"}, {"content", "ab"}, {"start", 1u}, {"stop", 0u}}),
               ModelError);
}

}  // namespace
}  // namespace penstock::model
