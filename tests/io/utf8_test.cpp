#include "io/utf8.hpp"

#include <gtest/gtest.h>

namespace penstock::io {
namespace {

// Expected values: bytes.decode("utf-8", "replace") of CPython 3.11.
TEST(Utf8, ReplacesAsPythonDoes) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(to_valid_utf8(""), "");
  EXPECT_EQ(to_valid_utf8("aé€😀"), "aé€😀");
  EXPECT_EQ(to_valid_utf8("a\xff"
                          "b"),
            "a" + r + "b");
  EXPECT_EQ(to_valid_utf8("\x80\x80"), r + r);
  EXPECT_EQ(to_valid_utf8("\xc0\xaf"), r + r);                  // overlong
  EXPECT_EQ(to_valid_utf8("\xe0\x80\xaf"), r + r + r);          // overlong
  EXPECT_EQ(to_valid_utf8("\xed\xa0\x80"), r + r + r);          // surrogate
  EXPECT_EQ(to_valid_utf8("\xf4\x90\x80\x80"), r + r + r + r);  // above U+10FFFF
  EXPECT_EQ(to_valid_utf8("\xf5"), r);
  EXPECT_EQ(to_valid_utf8("\xe2\x82"), r);             // cut off
  EXPECT_EQ(to_valid_utf8("\xf0\x9f\x98z"), r + "z");  // a start of three bytes: once
  EXPECT_EQ(to_valid_utf8("\xe2\x82\xe2\x82\xac"), r + "€");
  EXPECT_EQ(to_valid_utf8("\xf0\x80\x80"), r + r + r);
}

}  // namespace
}  // namespace penstock::io
