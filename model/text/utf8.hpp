#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace penstock::model {

struct CodePoint {
  char32_t value;
  std::size_t size_bytes;
};

// The character at `at`; `text` must be valid UTF-8.
inline CodePoint decode_utf8(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[at + i]));
  };
  const char32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

// The character that ends at text[end - 1]; `text` must be valid UTF-8, `end` above 0.
inline CodePoint decode_utf8_before(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return decode_utf8(text, at);
}

// `character` is a Unicode scalar value.
void append_utf8(char32_t character, std::string& text);

}  // namespace penstock::model
