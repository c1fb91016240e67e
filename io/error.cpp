#include "io/error.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstddef>
#include <system_error>

#include "io/utf8.hpp"

namespace penstock::io {

std::string quoted(std::string_view name) {
  constexpr std::size_t kLongest = 120;
  // A cut in the middle of a character becomes U+FFFD like any other broken part.
  const std::string text = to_valid_utf8(name.substr(0, kLongest));
  std::string result = "'";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 to U+009F are control characters too.
    const bool c1 = byte == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (byte < 0x20 || byte == 0x7f) {
      result += fmt::format("\\x{:02x}", byte);
    } else if (c1) {
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[++i]));
    } else {
      result += text[i];
    }
  }
  return result + (name.size() > kLongest ? "…'" : "'");
}

void throw_errno(std::string_view path, std::string_view action) {
  const std::string words = std::generic_category().message(errno);
  throw FileError(path, fmt::format("cannot {}: {}", action, words));
}

}  // namespace penstock::io
