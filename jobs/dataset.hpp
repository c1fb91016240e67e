#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "io/input_index.hpp"
#include "jobs/output_row.hpp"
#include "jobs/request.hpp"

namespace penstock::jobs {

// A record of the dataset, parsed and tokenized, or the reason why it cannot be.
using DatasetItem = std::variant<Request, FailedRecord>;

// The order in which the records of a window are worked on, as positions in `entries`: records with
// equal prefix hashes together, the groups by their longest record, longest first; inside a group
// longest first; ties in input order.
std::vector<std::uint32_t> window_order(const std::vector<io::IndexEntry>& entries);

// The ordered stream of requests of one driver. Memory is bounded by a window's entries.
// Not thread-safe. A broken record is an item; a broken input is an io::FileError.
class Dataset {
 public:
  // `input` and `builder` must outlive the dataset.
  // `window_records` are ordered together.
  Dataset(const io::IndexedInput& input, io::InputFormat format, const RequestBuilder& builder,
          std::uint32_t window_records = 65536);

  std::uint64_t size() const { return size_; }  // records

  // The next item, empty at the end.
  std::optional<DatasetItem> next();

 private:
  bool load_window();
  DatasetItem make_item(const io::IndexEntry& entry, std::uint64_t index) const;

  const io::IndexedInput* input_;
  io::InputFormat format_;
  const RequestBuilder* builder_;
  std::uint32_t window_records_;
  std::uint64_t size_ = 0;
  std::uint64_t window_begin_ = 0;  // index of the window's first record
  std::vector<io::IndexEntry> entries_;
  std::vector<std::uint32_t> order_;
  std::size_t position_ = 0;  // in order_
};

}  // namespace penstock::jobs
