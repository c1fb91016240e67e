#include "io/journal_scan.hpp"

#include <fmt/format.h>

#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "io/journal.hpp"

namespace penstock::io {
namespace {

using Partial = std::unordered_map<std::uint64_t, std::vector<std::int32_t>>;

}  // namespace

RecordSet::RecordSet(std::uint64_t first, std::uint64_t end) : first_(first), end_(end) {
  if (end < first) {
    throw std::invalid_argument(fmt::format("a set of the records {} to {}", first, end));
  }
  bits_.resize(end - first);
}

bool RecordSet::contains(std::uint64_t record) const {
  return record >= first_ && record < end_ && bits_[record - first_];
}

bool RecordSet::insert(std::uint64_t record) {
  if (record < first_ || record >= end_) {
    throw std::out_of_range(fmt::format("record {} of {} to {}", record, first_, end_));
  }
  if (bits_[record - first_]) return false;
  bits_[record - first_] = true;
  ++size_;
  return true;
}

JournalScan scan_journals(const std::vector<std::string>& journals, std::uint64_t first,
                          std::uint64_t end,
                          const std::function<void(std::string_view row)>& on_row) {
  JournalScan scan;
  scan.finished = RecordSet(first, end);
  JournalRow row;
  for (const std::string& journal : journals) {
    JournalReader reader(journal);
    Partial partial;  // of this journal
    while (reader.next(row)) {
      require_in_range(journal, row, first, end);
      if (row.partial) {
        if (!scan.finished.contains(row.index)) partial[row.index] = std::move(row.tokens);
      } else if (scan.finished.insert(row.index)) {
        ++scan.rows;
        partial.erase(row.index);
        scan.partial.erase(row.index);
        if (on_row) on_row(row.row);
      } else {
        ++scan.duplicates;
      }
    }
    for (auto& [record, tokens] : partial) {
      std::vector<std::int32_t>& longest = scan.partial[record];
      if (tokens.size() > longest.size()) longest = std::move(tokens);
    }
    scan.damaged_lines += reader.damaged_lines();
  }
  return scan;
}

}  // namespace penstock::io
