#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "io/input_index.hpp"
#include "io/journal_scan.hpp"
#include "jobs/output_row.hpp"
#include "jobs/request.hpp"

namespace penstock::jobs {

// A record of the dataset, parsed and tokenized, or the reason why it cannot be.
using DatasetItem = std::variant<Request, FailedRecord>;

// The order in which the records of a window are worked on, as positions in `entries`: records with
// equal prefix hashes together, the groups by their longest record, longest first; inside a group
// longest first; ties in input order.
std::vector<std::uint32_t> window_order(const std::vector<io::IndexEntry>& entries);

// A contiguous part of the dataset's records.
struct RecordRange {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
  std::uint64_t size() const { return end - first; }
};

// The ordered stream of requests of one driver. Memory is bounded by a window's entries.
// Not thread-safe. A broken record is an item; a broken input is an io::FileError.
class Dataset {
 public:
  // The records [first, end) without those that are `finished` already, which are not even read.
  // `input`, `builder` and `finished` must outlive the dataset. `window_records` are ordered
  // together.
  Dataset(const io::IndexedInput& input, io::InputFormat format, const RequestBuilder& builder,
          RecordRange range, const io::RecordSet& finished, std::uint32_t window_records = 65536);

  // The next item, empty at the end.
  std::optional<DatasetItem> next();

 private:
  bool load_window();
  DatasetItem make_item(const io::IndexEntry& entry, std::uint64_t index) const;

  const io::IndexedInput* input_;
  io::InputFormat format_;
  const RequestBuilder* builder_;
  RecordRange range_;
  const io::RecordSet* finished_;
  std::uint32_t window_records_;
  std::uint64_t next_window_ = 0;        // index of its first record
  std::vector<io::IndexEntry> entries_;  // of the window's records that are not finished
  std::vector<std::uint64_t> indexes_;   // of them, in the dataset
  std::vector<std::uint32_t> order_;
  std::size_t position_ = 0;  // in order_
};

}  // namespace penstock::jobs
