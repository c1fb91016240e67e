#include "io/utf8.hpp"

#include <algorithm>

#include <cstdint>
#include <cstring>

namespace penstock::io {
namespace {

std::uint8_t byte_at(std::string_view text, std::size_t at) {
  return static_cast<std::uint8_t>(text[at]);
}

// The first byte at or after `at` that is not ASCII.
std::size_t skip_ascii(std::string_view text, std::size_t at) {
  for (std::uint64_t word; at + sizeof word <= text.size(); at += sizeof word) {
    std::memcpy(&word, text.data() + at, sizeof word);
    if ((word & 0x8080808080808080u) != 0) break;
  }
  while (at < text.size() && byte_at(text, at) < 0x80) ++at;
  return at;
}

}  // namespace

Utf8Unit scan_utf8(std::string_view text, std::size_t at) {
  // Unicode standard 15, table 3-7: the range of the second byte depends on the first.
  const std::uint8_t lead = byte_at(text, at);
  if (lead < 0x80) return {Utf8Unit::Kind::character, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Unit::Kind::invalid, 1};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  std::uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  std::uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < length; ++i) {
    if (at + i == text.size()) return {Utf8Unit::Kind::truncated, i};
    const std::uint8_t next = byte_at(text, at + i);
    if (next < low || next > high) return {Utf8Unit::Kind::invalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Unit::Kind::character, length};
}

bool is_valid_utf8(std::string_view text) {
  for (std::size_t at = skip_ascii(text, 0); at < text.size(); at = skip_ascii(text, at)) {
    const Utf8Unit unit = scan_utf8(text, at);
    if (unit.kind != Utf8Unit::Kind::character) return false;
    at += unit.size_bytes;
  }
  return true;
}

bool has_control_characters(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t at = 0; at < bytes.size();) {
    const Utf8Unit unit = scan_utf8(bytes, at);
    text += unit.kind == Utf8Unit::Kind::character ? bytes.substr(at, unit.size_bytes)
                                                   : kReplacementCharacter;
    at += unit.size_bytes;
  }
  return text;
}

}  // namespace penstock::io
