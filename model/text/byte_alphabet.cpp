#include "model/text/byte_alphabet.hpp"

#include "model/text/utf8.hpp"

namespace penstock::model {
namespace {

constexpr std::array<short, 0x180> make_inverse() {
  std::array<short, 0x180> inverse{};
  inverse.fill(-1);
  for (short byte = 0; byte < 256; ++byte) {
    inverse[byte_alphabet[static_cast<std::size_t>(byte)]] = byte;
  }
  return inverse;
}
constexpr std::array<short, 0x180> inverse_alphabet = make_inverse();

}  // namespace

std::string to_byte_alphabet(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char byte : bytes) append_utf8(byte_alphabet[static_cast<unsigned char>(byte)], text);
  return text;
}

std::optional<std::string> from_byte_alphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    if (c.value >= inverse_alphabet.size() || inverse_alphabet[c.value] < 0) return std::nullopt;
    bytes += static_cast<char>(inverse_alphabet[c.value]);
    at += c.size_bytes;
  }
  return bytes;
}

}  // namespace penstock::model
