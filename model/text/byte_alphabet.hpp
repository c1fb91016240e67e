#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::model {

// GPT-2's alphabet of byte-level vocabularies: each byte as a visible character.
// Source: github.com/openai/gpt-2, src/encoder.py, bytes_to_unicode.
constexpr std::array<char32_t, 256> make_byte_alphabet() {
  std::array<char32_t, 256> alphabet{};
  char32_t next = 256;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool visible = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
                         (byte >= 0xAE && byte <= 0xFF);
    alphabet[byte] = visible ? byte : next++;
  }
  return alphabet;
}
inline constexpr std::array<char32_t, 256> byte_alphabet = make_byte_alphabet();

std::string to_byte_alphabet(std::string_view bytes);
// The bytes that valid UTF-8 `text` stands for; nothing if a character is not of the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view text);

}  // namespace penstock::model
