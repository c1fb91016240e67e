#include "io/utf8.hpp"

#include <cstddef>
#include <cstdint>

namespace penstock::io {
namespace {

// What may follow a first byte (Unicode standard 15, table 3-7). `length` 0: not a first byte.
struct Lead {
  std::size_t length = 0;
  std::uint8_t second_min = 0x80;
  std::uint8_t second_max = 0xBF;
};

Lead lead_of(std::uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {};
}

}  // namespace

std::string to_valid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t i = 0; i < bytes.size();) {
    const Lead lead = lead_of(static_cast<std::uint8_t>(bytes[i]));
    std::size_t good = 1;
    while (good < lead.length && i + good < bytes.size()) {
      const auto next = static_cast<std::uint8_t>(bytes[i + good]);
      const std::uint8_t low = good == 1 ? lead.second_min : 0x80;
      const std::uint8_t high = good == 1 ? lead.second_max : 0xBF;
      if (next < low || next > high) break;
      ++good;
    }
    if (good == lead.length) {
      text.append(bytes.substr(i, good));
    } else {
      text.append("\xEF\xBF\xBD");
    }
    i += good;
  }
  return text;
}

}  // namespace penstock::io
