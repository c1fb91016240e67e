#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/records.hpp"

namespace penstock::io {

// A longer line is indexed, so that it gets its error row, but never read: a record costs a small
// multiple of its line's bytes while it is parsed and tokenized.
inline constexpr std::uint32_t kMaxLineBytes = 64u << 20;

// Where a record lies in the input. 32 bytes in the index file.
struct IndexEntry {
  std::uint64_t offset = 0;  // bytes from the start of the input
  std::uint32_t length = 0;  // bytes, without the newline, saturating
  std::uint32_t line = 0;    // 1-based, saturating
  // Of XXH3-64 of the line's first 256 bytes the lower half: equal prefixes sort together.
  std::uint32_t prefix_hash = 0;
  // What follows "max_tokens": in the line, as far as a search without parsing tells; 0: nothing,
  // or no whole number. Good for a guess of how long the answer may get, never for the answer.
  std::uint32_t max_tokens = 0;
  std::uint64_t hash = 0;  // XXH3-64 of the whole line: no other content is ever answered
};

// One pass over the input writes `index_path`. Blank lines are not records; CRLF is accepted; a
// UTF-8 byte order mark at the start is skipped. Lines may have any length.
// Only the first `limit` records count; what is behind them is not read. Returns their number.
// `on_bytes`, if given, is called now and then with the bytes read so far.
std::uint64_t build_index(const std::string& input_path, const std::string& index_path,
                          std::uint64_t limit = UINT64_MAX,
                          const std::function<void(std::uint64_t bytes)>& on_bytes = {});

// Copies standard input to `path`, up to the end of the line of the `limit`-th record. `on_bytes`,
// if given, is called with the bytes read so far, also every second while nothing comes.
void spool_standard_input(const std::string& path, std::uint64_t limit = UINT64_MAX,
                          const std::function<void(std::uint64_t bytes)>& on_bytes = {});

// Reads entries and lines on demand; memory does not grow with the input. Not thread-safe.
class IndexedInput {
 public:
  IndexedInput(const std::string& input_path, const std::string& index_path);
  ~IndexedInput();
  IndexedInput(IndexedInput&&) noexcept;
  IndexedInput& operator=(IndexedInput&&) noexcept;

  std::uint64_t size() const;  // records
  std::vector<IndexEntry> entries(std::uint64_t first, std::uint64_t count) const;
  // Without newline and carriage return. A line above kMaxLineBytes is a RecordError, one that is
  // not what was indexed a FileError.
  std::string line(const IndexEntry& entry) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Names that end in .jsonl, .ndjson or .json are JSONL, in .txt text; of others the first lines
// tell: JSONL if they begin with '{'. Where only some do, it is a FileError, as is a JSON list;
// `shown` is the file's name there.
InputFormat detect_format(const std::string& path, std::string_view shown);

}  // namespace penstock::io
