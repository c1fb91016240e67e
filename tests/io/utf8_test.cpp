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
  EXPECT_EQ(to_valid_utf8("\xf0\x9f\xf0\x9f\x91\x8d"), r + "\xf0\x9f\x91\x8d");
}

TEST(Utf8, KnowsWhatIsValid) {
  EXPECT_TRUE(is_valid_utf8(""));
  EXPECT_TRUE(is_valid_utf8("aé€😀\xef\xbf\xbd"));
  EXPECT_TRUE(is_valid_utf8("0123456789abcdefé"));
  for (const char* broken :
       {"\x80", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\xff",
        "ok\xf0\x9f\x98", "0123456789abcdef\xc3", "01234567\x80"}) {
    EXPECT_FALSE(is_valid_utf8(broken)) << broken;
  }
}

TEST(Utf8, ControlCharacters) {
  EXPECT_FALSE(has_control_characters(""));
  EXPECT_FALSE(has_control_characters("NVIDIA H100, caf\xc3\xa9 ~"));
  for (const char c : {'\0', '\n', '\x1b', '\x1f', '\x7f'}) {
    EXPECT_TRUE(has_control_characters(std::string("a") + c)) << static_cast<int>(c);
  }
}

TEST(Utf8, TellsWhatIsCutFromWhatIsBroken) {
  using Kind = Utf8Unit::Kind;
  const auto kind = [](std::string_view text) { return scan_utf8(text, 0).kind; };
  EXPECT_EQ(kind("\xe2\x82\xac"), Kind::character);
  EXPECT_EQ(kind("\xe2\x82"), Kind::truncated);
  EXPECT_EQ(kind("\xe2\x82x"), Kind::invalid);
  EXPECT_EQ(scan_utf8("\xe2\x82x", 0).size_bytes, 2u);
  EXPECT_EQ(kind("\xed\xa0"), Kind::invalid);  // whatever follows, a surrogate
}

}  // namespace
}  // namespace penstock::io
