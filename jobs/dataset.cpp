#include "jobs/dataset.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace penstock::jobs {

namespace {

// The size of the windows if there are no more of them than needed, and all are of one size.
std::uint64_t window_size(std::uint64_t records, std::uint32_t most) {
  const std::uint64_t windows = (records + most - 1) / most;
  return windows == 0 ? 0 : (records + windows - 1) / windows;
}

}  // namespace

Dataset::Dataset(const io::IndexedInput& input, io::InputFormat format,
                 const RequestBuilder& builder, RecordRange range, const io::RecordSet& finished,
                 std::uint32_t window_records)
    : input_(&input),
      format_(format),
      builder_(&builder),
      range_(range),
      finished_(&finished),
      window_records_(window_size(range.size(), window_records)),
      next_window_(range.first) {}

std::optional<DatasetItem> Dataset::next() {
  std::optional<RecordOrder::Next> next = order_.next();
  while (!next) {
    if (!load_window()) return std::nullopt;
    next = order_.next();
  }
  return make_item(entries_[next->position], indexes_[next->position], next->kind);
}

void Dataset::learn(const Request& request, std::uint32_t tokens, bool complete) {
  order_.learn(request.kind, request.params.max_tokens, tokens, complete);
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
  std::vector<RecordFacts> known;
  known.reserve(entries_.size());
  for (const io::IndexEntry& entry : entries_) known.push_back(facts(entry));
  order_.begin(known);
  next_window_ += count;
  return true;
}

RecordFacts Dataset::facts(const io::IndexEntry& entry) const {
  const RequestContext& context = builder_->context();
  const bool is_said = format_ == io::InputFormat::jsonl && entry.max_tokens > 0;
  const std::uint32_t max_tokens = is_said ? entry.max_tokens : context.defaults.max_tokens;
  return {entry.length, std::clamp(max_tokens, 1U, std::max(context.context_limit, 1U)),
          entry.prefix_hash};
}

DatasetItem Dataset::make_item(const io::IndexEntry& entry, std::uint64_t index,
                               RecordKind kind) const {
  try {
    const std::string line = input_->line(entry);
    Request request = builder_->build(io::parse_record(line, format_), index, entry.line);
    request.kind = kind;
    return request;
  } catch (const io::RecordError& error) {
    return FailedRecord{index, entry.line, error.id, error.what()};
  }
}

}  // namespace penstock::jobs
