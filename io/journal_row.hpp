#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::io {

// A journal's line and the output row in it; journal.hpp describes the format.

// Longer rows are not written, and are not looked for in a broken file.
inline constexpr std::size_t kMaxRowBytes = 1u << 28;

// The line for `row`, with newline. Throws std::invalid_argument unless `row` is one JSON object on
// one line with at least one member, by its first and last bytes.
std::string to_journal_line(std::string_view row);

// The output row of a line (without newline); empty if its end or its checksum is wrong.
std::optional<std::string> from_journal_line(std::string_view line);

// The number at the row's top-level "index"; empty if it has none.
std::optional<std::uint64_t> row_index(std::string_view row);

}  // namespace penstock::io
