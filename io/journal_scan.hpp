#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace penstock::io {

// A set of records in a range, a bit each.
class RecordSet {
 public:
  RecordSet() = default;
  RecordSet(std::uint64_t first, std::uint64_t end);  // std::invalid_argument if end < first

  bool contains(std::uint64_t record) const;  // false outside the range
  // False if it was there. Outside the range: std::out_of_range.
  bool insert(std::uint64_t record);
  std::uint64_t size() const { return size_; }

 private:
  std::uint64_t first_ = 0;
  std::uint64_t end_ = 0;
  std::uint64_t size_ = 0;
  std::vector<bool> bits_;
};

// What the journals of a job that was interrupted hold.
struct JournalScan {
  RecordSet finished;
  // The ids generated so far of records that are begun but not finished; never negative, but not
  // compared with any vocabulary.
  std::unordered_map<std::uint64_t, std::vector<std::int32_t>> partial;
  std::uint64_t rows = 0;        // of finished records, each once: finished.size()
  std::uint64_t duplicates = 0;  // later rows of the same record
  std::uint64_t damaged_lines = 0;
};

// Reads the journals, in this order, front to back. A row or partial row of a record outside
// [first, end) is a FileError: the journal is of another job. `on_row`, if given, is called with
// the output row that counts of each finished record, in the journals' order.
JournalScan scan_journals(const std::vector<std::string>& journals, std::uint64_t first,
                          std::uint64_t end,
                          const std::function<void(std::string_view row)>& on_row = {});

}  // namespace penstock::io
