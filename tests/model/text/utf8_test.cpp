#include "model/text/utf8.hpp"

#include <gtest/gtest.h>

namespace penstock::model {
namespace {

// The expected strings are those of Python's bytes.decode("utf-8", "replace").
TEST(Utf8Test, ReplacesInvalidBytesAsPythonDoes) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(replace_invalid_utf8("plain \xC3\xA9 \xF0\x9F\x91\x8D"),
            "plain \xC3\xA9 \xF0\x9F\x91\x8D");
  EXPECT_EQ(replace_invalid_utf8("a\xE1\x80"
                                 "b"),
            "a" + r + "b");
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x91"), r);
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF"), r + r);                  // too long
  EXPECT_EQ(replace_invalid_utf8("\xE0\x9F\xBF"), r + r + r);          // too long
  EXPECT_EQ(replace_invalid_utf8("\xF4\x90\x80\x80"), r + r + r + r);  // above U+10FFFF
  EXPECT_EQ(replace_invalid_utf8("\xF5\x80"), r + r);
  EXPECT_EQ(replace_invalid_utf8("\x80\xBFx\xFF"), r + r + "x" + r);
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\xF0\x9F\x91\x8D"), r + "\xF0\x9F\x91\x8D");
}

TEST(Utf8Test, KnowsUtf8) {
  EXPECT_TRUE(is_utf8(""));
  EXPECT_TRUE(is_utf8("0123456789abcdef\xC3\xA9"));
  EXPECT_FALSE(is_utf8("0123456789abcdef\xC3"));
  EXPECT_FALSE(
      is_utf8("01234567\x80"
              "9abcdef"));
}

TEST(Utf8Test, EveryCharacterComesBack) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(c, text);
    ASSERT_TRUE(is_utf8(text));
    ASSERT_EQ(decode_utf8(text, 0).value, c);
    ASSERT_EQ(decode_utf8(text, 0).size_bytes, text.size());
    ASSERT_EQ(decode_utf8_before("x" + text, text.size() + 1).value, c);
  }
}

}  // namespace
}  // namespace penstock::model
