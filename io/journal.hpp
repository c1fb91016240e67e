#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::io {

// The append-only journal of a run: one JSON object a line. The row of a finished record is its
// output row, which begins with "id"; the row of one that is not finished, a partial row, is
// {"partial":[1,2,3],"index":7} with the token ids generated so far. Both have one more last
// member, "xxh3": the XXH3-64 (16 hexadecimal digits) of the bytes before the member's comma. So
// any JSON tool reads a journal, and a torn or damaged row is seen.
//
// The latest partial row of a record counts until there is a row of it. Where several journals have
// one, since the record had several owners, that of the most tokens does: nothing says which is the
// later one, and one answer's tokens are the same in all.

// When rows go to the disk. The defaults are for jobs, others for tests.
struct JournalLimits {
  std::chrono::milliseconds delay{500};  // after append(), so that a row is durable within 1 s
  std::size_t rows = 64;                 // that do not wait for the delay
  std::size_t waiting_bytes = 64u << 20;
  // For append() and sync(), while not a byte is taken by the file system.
  std::chrono::milliseconds patience{10 * 60 * 1000};
};

// Writes and fdatasyncs on a thread of its own, so that a slow file system does not stop the
// pipeline. All functions may be called from any thread.
//
// A failure of the thread (a full disk) is thrown, as FileError, by the next append() or sync(),
// once. The rows concerned are kept: the append() or sync() after that tries to write them again,
// on a line of their own, so that a row may stand in the file twice, or once torn.
class JournalWriter {
 public:
  // Creates or appends to `path`. A last line without newline, which a killed job may leave, is
  // cut off. Throws FileError.
  explicit JournalWriter(const std::string& path, const JournalLimits& limits = {});
  // Writes and syncs what waits, as well as the disk allows.
  ~JournalWriter();
  JournalWriter(const JournalWriter&) = delete;
  JournalWriter& operator=(const JournalWriter&) = delete;

  // `row` is one JSON object on one line, without newline, with "index" equal to `index`; else
  // std::invalid_argument. Blocks while more than limits.waiting_bytes wait. Where it throws, the
  // row is not taken.
  void append(std::uint64_t index, std::string_view row);
  // The ids generated so far, none of them negative (std::invalid_argument).
  void append_partial(std::uint64_t index, std::span<const std::int32_t> tokens);

  // All that was appended is on disk when it returns.
  void sync();
  // Write and sync now what is there, without waiting for it; never throws.
  void hurry() noexcept;
  // Forgets what waits, since the file is another process's now; what the thread has taken may
  // still be written. No other call may follow.
  void abandon() noexcept;

 private:
  struct State;
  void append_line(std::string_view line);
  std::shared_ptr<State> state_;
};

struct JournalRow {
  std::uint64_t index = 0;  // of the record
  bool partial = false;
  std::string row;                   // the output row, without checksum; empty if partial
  std::vector<std::int32_t> tokens;  // if partial: ids generated so far, not negative
  std::uint64_t offset = 0;          // of the line in the file
  std::uint32_t length = 0;          // of the line, bytes without newline
};

// Reads rows front to back. Lines that are damaged (torn, of zeros or rubbish, longer than any row,
// with a wrong checksum, of no record) are skipped and counted: their records are computed again.
// Bytes appended after the constructor are not read.
class JournalReader {
 public:
  explicit JournalReader(const std::string& path);  // throws FileError
  ~JournalReader();
  JournalReader(const JournalReader&) = delete;
  JournalReader& operator=(const JournalReader&) = delete;

  // False at the end. Throws FileError where the file cannot be read.
  bool next(JournalRow& row);
  std::uint64_t damaged_lines() const;  // up to the last row read

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Throws FileError unless the row is of one of the records `first` … `end` - 1.
void require_in_range(const std::string& journal, const JournalRow& row, std::uint64_t first,
                      std::uint64_t end);

struct MergeCounts {
  std::uint64_t rows = 0;
  std::uint64_t duplicates = 0;  // later rows of the same record, ignored
  std::uint64_t damaged_lines = 0;
};

// Merges journals into `output` in index order: the rows of records `first` … `end` - 1, each
// exactly once, written under a temporary name, synced and renamed. Partial rows and damaged lines
// are left out. Memory stays bounded (a table of offsets lives in a scratch file in
// `scratch_folder`, windows of it in memory). FileError for a record without a row, and for a row
// of a record that is not in the range. `on_rows`, if given, is called now and then with the number
// of rows read and written so far, twice `end` - `first` or more in the end; `before_commit` when
// all is written but the rename: what it throws leaves `output` as it was.
MergeCounts merge_journals(const std::vector<std::string>& journals, std::uint64_t first,
                           std::uint64_t end, const std::string& output,
                           const std::string& scratch_folder,
                           const std::function<void(std::uint64_t rows)>& on_rows = {},
                           const std::function<void()>& before_commit = {});

}  // namespace penstock::io
