#pragma once

#include <string>
#include <string_view>

namespace penstock::io {

// `bytes` with each broken part replaced by U+FFFD, as Python's bytes.decode("utf-8", "replace")
// does: one for each longest start of a character that cannot go on (Unicode standard 15, section
// 3.9, "U+FFFD substitution of maximal subparts").
std::string to_valid_utf8(std::string_view bytes);

}  // namespace penstock::io
