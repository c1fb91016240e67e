#pragma once

#include <cstdint>
#include <vector>

namespace penstock::jobs {

// The KV blocks of a pipeline, managed by the driver for all stages at once. Lowest ids first, so
// that the memory in use stays together.
class BlockPool {
 public:
  explicit BlockPool(std::uint32_t capacity);

  std::uint32_t capacity() const { return capacity_; }
  std::uint32_t free() const { return static_cast<std::uint32_t>(capacity_ - used_count_); }

  // Appends `count` blocks to `blocks`; false, and nothing changed, if there are not enough.
  bool allocate(std::uint32_t count, std::vector<std::uint32_t>& blocks);
  // Takes back all of `blocks` and empties it. Throws std::logic_error on a block not handed out.
  void release(std::vector<std::uint32_t>& blocks);

 private:
  std::uint32_t capacity_ = 0;
  std::uint32_t used_count_ = 0;
  std::vector<bool> used_;
  std::vector<std::uint32_t> free_heap_;  // min-heap
};

}  // namespace penstock::jobs
