#include "jobs/dataset.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <unordered_map>
#include <utility>

namespace penstock::jobs {

std::vector<std::uint32_t> window_order(const std::vector<io::IndexEntry>& entries) {
  // Each group of equal prefixes is known by its longest record, the first of them on a tie.
  struct Head {
    std::uint32_t length = 0;
    std::uint32_t position = 0;
  };
  std::unordered_map<std::uint64_t, Head> heads;
  heads.reserve(entries.size());
  for (std::uint32_t i = 0; i < entries.size(); ++i) {
    const auto [head, is_new] =
        heads.try_emplace(entries[i].prefix_hash, Head{entries[i].length, i});
    if (!is_new && entries[i].length > head->second.length) {
      head->second = {entries[i].length, i};
    }
  }
  struct Key {
    Head head;
    std::uint32_t length;
    std::uint32_t position;
  };
  std::vector<Key> keys;
  keys.reserve(entries.size());
  for (std::uint32_t i = 0; i < entries.size(); ++i) {
    keys.push_back({heads.at(entries[i].prefix_hash), entries[i].length, i});
  }
  // Heads differ in position, so that groups of equal length do not mix.
  std::sort(keys.begin(), keys.end(), [](const Key& a, const Key& b) {
    if (a.head.length != b.head.length) return a.head.length > b.head.length;
    if (a.head.position != b.head.position) return a.head.position < b.head.position;
    if (a.length != b.length) return a.length > b.length;
    return a.position < b.position;
  });
  std::vector<std::uint32_t> order(entries.size());
  std::transform(keys.begin(), keys.end(), order.begin(),
                 [](const Key& key) { return key.position; });
  return order;
}

Dataset::Dataset(const io::IndexedInput& input, io::InputFormat format,
                 const RequestBuilder& builder, RecordRange range, const io::RecordSet& finished,
                 std::uint32_t window_records)
    : input_(&input),
      format_(format),
      builder_(&builder),
      range_(range),
      finished_(&finished),
      window_records_(window_records),
      next_window_(range.first) {}

std::optional<DatasetItem> Dataset::next() {
  while (position_ == order_.size()) {
    if (!load_window()) return std::nullopt;
  }
  const std::uint32_t position = order_[position_++];
  return make_item(entries_[position], indexes_[position]);
}

bool Dataset::load_window() {
  if (next_window_ == range_.end) return false;
  const std::uint64_t count = std::min<std::uint64_t>(window_records_, range_.end - next_window_);
  const std::vector<io::IndexEntry> window = input_->entries(next_window_, count);
  entries_.clear();
  indexes_.clear();
  for (std::uint64_t i = 0; i < count; ++i) {
    if (finished_->contains(next_window_ + i)) continue;
    entries_.push_back(window[i]);
    indexes_.push_back(next_window_ + i);
  }
  order_ = window_order(entries_);
  next_window_ += count;
  position_ = 0;
  return true;
}

DatasetItem Dataset::make_item(const io::IndexEntry& entry, std::uint64_t index) const {
  try {
    const std::string line = input_->line(entry);
    return builder_->build(io::parse_record(line, format_), index, entry.line);
  } catch (const io::RecordError& error) {
    return FailedRecord{index, entry.line, error.id, error.what()};
  }
}

}  // namespace penstock::jobs
