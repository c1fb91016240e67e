#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace penstock::io {

// What stands at one place of a byte string that may not be UTF-8.
struct Utf8Unit {
  enum class Kind {
    character,  // a whole character
    invalid,    // the longest start of a character that cannot go on (a "maximal subpart")
    truncated,  // the start of a character whose end is missing
  };
  Kind kind;
  std::size_t size_bytes;
};

// `at` is inside of `text`.
Utf8Unit scan_utf8(std::string_view text, std::size_t at);

bool is_valid_utf8(std::string_view text);

// Whether a terminal would do something else than show it.
bool has_control_characters(std::string_view text);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// `bytes` with each unit that is not a character replaced by U+FFFD, as Python's
// bytes.decode("utf-8", "replace") and Rust's String::from_utf8_lossy do (Unicode standard 15,
// section 3.9, "U+FFFD substitution of maximal subparts").
std::string to_valid_utf8(std::string_view bytes);

}  // namespace penstock::io
