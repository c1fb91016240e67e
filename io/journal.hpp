#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::io {

// The append-only journal of finished records: one JSON object a line. A row is the output row
// with one more last member, "xxh3": the XXH3-64 (16 hexadecimal digits) of the bytes before the
// member's comma. So any JSON tool reads it, and a torn or damaged row is seen.
class JournalWriter {
 public:
  // Creates or appends to `path`.
  explicit JournalWriter(const std::string& path);
  ~JournalWriter();  // flushes, without sync
  JournalWriter(JournalWriter&&) noexcept;
  JournalWriter& operator=(JournalWriter&&) noexcept;

  // `row` is one JSON object on one line, without newline. Buffered; throws FileError.
  void append(std::uint64_t index, std::string_view row);
  void flush();  // to the operating system
  void sync();   // flush and fdatasync

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Reads rows front to back. `row` is the output row, without the checksum. Returns false at the
// end; a torn last row (no newline, or a bad checksum on the last line) counts as the end; damage
// before that is a FileError with the line number.
class JournalReader {
 public:
  explicit JournalReader(const std::string& path);
  ~JournalReader();
  bool next(std::uint64_t& index, std::string& row);
  std::uint64_t valid_bytes() const;  // up to the end of the last good row

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct MergeCounts {
  std::uint64_t rows = 0;
  std::uint64_t duplicates = 0;  // later rows of the same record, ignored
};

// Merges journals into `output` in index order: rows 0 … records - 1, each exactly once, written
// under a temporary name, synced and renamed. Memory stays bounded (a table of offsets lives in a
// scratch file in `scratch_folder`, windows of it in memory). A missing record is a FileError.
MergeCounts merge_journals(const std::vector<std::string>& journals, std::uint64_t records,
                           const std::string& output, const std::string& scratch_folder);

}  // namespace penstock::io
