#include "model/text/utf8.hpp"

#include <gtest/gtest.h>

#include "io/utf8.hpp"

namespace penstock::model {
namespace {

TEST(Utf8Test, EveryCharacterComesBack) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(c, text);
    ASSERT_TRUE(io::is_valid_utf8(text));
    ASSERT_EQ(decode_utf8(text, 0).value, c);
    ASSERT_EQ(decode_utf8(text, 0).size_bytes, text.size());
    ASSERT_EQ(decode_utf8_before("x" + text, text.size() + 1).value, c);
  }
}

}  // namespace
}  // namespace penstock::model
