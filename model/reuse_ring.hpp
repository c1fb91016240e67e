#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace penstock::model {

// Entries that are used in turn, each again only when its last use is over: `Entry` has
// wait_until_free(), which waits for that and returns at once where it never was in use.
template <class Entry>
class ReuseRing {
 public:
  ReuseRing() = default;
  explicit ReuseRing(std::vector<Entry> entries) : entries_(std::move(entries)) {}

  // The one that was used longest ago.
  Entry& next() {
    Entry& entry = entries_.at(next_);
    entry.wait_until_free();
    next_ = (next_ + 1) % entries_.size();
    return entry;
  }

 private:
  std::vector<Entry> entries_;
  std::size_t next_ = 0;
};

}  // namespace penstock::model
