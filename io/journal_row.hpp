#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::io {

// A journal's line and the row in it; journal.hpp describes the format.

// Longer rows are not written, and are not looked for in a broken file.
inline constexpr std::size_t kMaxRowBytes = 1u << 28;

// The line for `row`, with newline. Throws std::invalid_argument unless `row` is one JSON object on
// one line with at least one member, by its first and last bytes.
std::string to_journal_line(std::string_view row);

// The row of a line (without newline); empty if its end or its checksum is wrong.
std::optional<std::string> from_journal_line(std::string_view line);

// The number at an output row's top-level "index"; empty if it has none.
std::optional<std::uint64_t> row_index(std::string_view row);

// Whether a row is a partial one, by its first member.
bool is_partial_row(std::string_view row);

// Throws std::invalid_argument if a token is negative.
std::string to_partial_row(std::uint64_t index, std::span<const std::int32_t> tokens);

// The index of a partial row, its ids in `tokens`; empty unless it is what to_partial_row() makes.
std::optional<std::uint64_t> from_partial_row(std::string_view row,
                                              std::vector<std::int32_t>& tokens);

}  // namespace penstock::io
