#include "model/text/utf8.hpp"

#include <cstdint>
#include <cstring>

namespace penstock::model {
namespace {

unsigned char byte_at(std::string_view text, std::size_t at) {
  return static_cast<unsigned char>(text[at]);
}

// The first byte at or after `at` that is not ASCII.
std::size_t skip_ascii(std::string_view text, std::size_t at) {
  for (std::uint64_t word; at + sizeof word <= text.size(); at += sizeof word) {
    std::memcpy(&word, text.data() + at, sizeof word);
    if ((word & 0x8080808080808080ULL) != 0) break;
  }
  while (at < text.size() && byte_at(text, at) < 0x80) ++at;
  return at;
}

}  // namespace

Utf8Unit scan_utf8(std::string_view text, std::size_t at) {
  // Table 3-7 of the Unicode standard: the second byte's range depends on the first.
  const unsigned char lead = byte_at(text, at);
  if (lead < 0x80) return {Utf8Unit::Kind::character, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Unit::Kind::invalid, 1};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i == text.size()) return {Utf8Unit::Kind::truncated, i};
    const unsigned char next = byte_at(text, at + i);
    if (next < low || next > high) return {Utf8Unit::Kind::invalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Unit::Kind::character, length};
}

bool is_utf8(std::string_view text) {
  for (std::size_t at = skip_ascii(text, 0); at < text.size(); at = skip_ascii(text, at)) {
    const Utf8Unit unit = scan_utf8(text, at);
    if (unit.kind != Utf8Unit::Kind::character) return false;
    at += unit.size_bytes;
  }
  return true;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Unit unit = scan_utf8(text, at);
    result += unit.kind == Utf8Unit::Kind::character ? text.substr(at, unit.size_bytes)
                                                     : replacement_character;
    at += unit.size_bytes;
  }
  return result;
}

void append_utf8(char32_t character, std::string& text) {
  const auto add = [&](char32_t byte) {
    text += static_cast<char>(static_cast<unsigned char>(byte));
  };
  if (character < 0x80) {
    add(character);
  } else if (character < 0x800) {
    add(0xC0 | character >> 6);
    add(0x80 | (character & 0x3F));
  } else if (character < 0x10000) {
    add(0xE0 | character >> 12);
    add(0x80 | (character >> 6 & 0x3F));
    add(0x80 | (character & 0x3F));
  } else {
    add(0xF0 | character >> 18);
    add(0x80 | (character >> 12 & 0x3F));
    add(0x80 | (character >> 6 & 0x3F));
    add(0x80 | (character & 0x3F));
  }
}

}  // namespace penstock::model
