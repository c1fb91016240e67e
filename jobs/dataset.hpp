#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "io/input_index.hpp"
#include "io/journal_scan.hpp"
#include "jobs/output_row.hpp"
#include "jobs/record_order.hpp"
#include "jobs/request.hpp"

namespace penstock::jobs {

// A record of the dataset, parsed and tokenized, or the reason why it cannot be.
using DatasetItem = std::variant<Request, FailedRecord>;

// A contiguous part of the dataset's records.
struct RecordRange {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
  std::uint64_t size() const { return end - first; }
};

// The stream of requests of one driver, in windows that are ordered by RecordOrder. Memory is
// bounded by a window's entries.
// Not thread-safe. A broken record is an item; a broken input is an io::FileError.
class Dataset {
 public:
  // The records [first, end) without those that are `finished` already, which are not even read.
  // `input`, `builder` and `finished` must outlive the dataset. At most
  // `window_records` are ordered together; windows are of equal size, so that the last one, which
  // the pipeline's drain depends on, has enough to choose from.
  Dataset(const io::IndexedInput& input, io::InputFormat format, const RequestBuilder& builder,
          RecordRange range, const io::RecordSet& finished, std::uint32_t window_records = 65536);

  // Before the first item; where it is not known, windows begin with their longest records.
  void set_room(const PipelineRoom& room) { order_.set_room(room); }

  // The next item, empty at the end.
  std::optional<DatasetItem> next();

  // `tokens` more came of a request's answer, which may be `complete` now: the order of those that
  // are to come depends on it.
  void learn(const Request& request, std::uint32_t tokens, bool complete);

 private:
  bool load_window();
  RecordFacts facts(const io::IndexEntry& entry) const;
  DatasetItem make_item(const io::IndexEntry& entry, std::uint64_t index, RecordKind kind) const;

  const io::IndexedInput* input_;
  io::InputFormat format_;
  const RequestBuilder* builder_;
  RecordRange range_;
  const io::RecordSet* finished_;
  std::uint64_t window_records_;
  std::uint64_t next_window_ = 0;        // index of its first record
  std::vector<io::IndexEntry> entries_;  // of the window's records that are not finished
  std::vector<std::uint64_t> indexes_;   // of them, in the dataset
  RecordOrder order_;
};

}  // namespace penstock::jobs
