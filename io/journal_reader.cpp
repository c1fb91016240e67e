#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/journal.hpp"
#include "io/journal_row.hpp"

namespace penstock::io {
namespace {

constexpr std::size_t kReadBytes = 1u << 20;
constexpr std::size_t kMaxLineBytes = kMaxRowBytes + 64;  // the row and its checksum

// The row of a line, except for its place in the file.
bool parse(std::string_view line, JournalRow& row) {
  std::optional<std::string> text = from_journal_line(line);
  if (!text) return false;
  row.tokens.clear();
  row.partial = is_partial_row(*text);
  const std::optional<std::uint64_t> index =
      row.partial ? from_partial_row(*text, row.tokens) : row_index(*text);
  if (!index) return false;
  row.index = *index;
  row.row = row.partial ? std::string() : std::move(*text);
  return true;
}

}  // namespace

struct JournalReader::State {
  File file;
  std::uint64_t size = 0;
  std::uint64_t read = 0;  // bytes of the file; the last ones are in `buffer`
  std::string buffer;
  std::size_t begin = 0;  // of the next line, in buffer
  bool too_long = false;  // the line at `begin`: its start is gone
  std::uint64_t damaged = 0;

  // The next line that ends in a newline, without it. Blank lines, which failed writes leave, do
  // not count.
  std::optional<std::string_view> next_line() {
    std::size_t searched = begin;
    while (true) {
      const std::size_t newline = buffer.find('\n', searched);
      if (newline != std::string::npos) {
        const std::string_view line = std::string_view(buffer).substr(begin, newline - begin);
        begin = searched = newline + 1;
        if (std::exchange(too_long, false)) {
          ++damaged;
        } else if (!line.empty()) {
          return line;
        }
        continue;
      }
      if (buffer.size() - begin > kMaxLineBytes) too_long = true;
      if (read == size) {
        if (too_long || begin < buffer.size()) ++damaged;
        too_long = false;
        begin = buffer.size();
        return std::nullopt;
      }
      if (too_long) begin = buffer.size();
      searched = buffer.size() - begin;
      fill();
    }
  }

  void fill() {
    buffer.erase(0, begin);
    begin = 0;
    const std::size_t kept = buffer.size();
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(size - read, kReadBytes));
    buffer.resize(kept + count);
    file.read_at(read, std::as_writable_bytes(std::span(buffer).subspan(kept)));
    read += count;
  }

  std::uint64_t offset_of(std::string_view line) const {
    return read - buffer.size() + static_cast<std::uint64_t>(line.data() - buffer.data());
  }
};

JournalReader::JournalReader(const std::string& path) : state_(std::make_unique<State>()) {
  state_->file = File(path);
  state_->size = state_->file.size_bytes();
}

JournalReader::~JournalReader() = default;

bool JournalReader::next(JournalRow& row) {
  State& state = *state_;
  while (const std::optional<std::string_view> line = state.next_line()) {
    if (parse(*line, row)) {
      row.offset = state.offset_of(*line);
      row.length = static_cast<std::uint32_t>(line->size());
      return true;
    }
    ++state.damaged;
  }
  return false;
}

std::uint64_t JournalReader::damaged_lines() const { return state_->damaged; }

void require_in_range(const std::string& journal, const JournalRow& row, std::uint64_t first,
                      std::uint64_t end) {
  if (row.index >= first && row.index < end) return;
  const std::string range = first == end ? "none" : fmt::format("{} to {}", first, end - 1);
  throw FileError(journal, fmt::format("has a row of record {} at byte {}, the records of this job "
                                       "are {}: it is the journal of another job",
                                       row.index, row.offset, range));
}

}  // namespace penstock::io
