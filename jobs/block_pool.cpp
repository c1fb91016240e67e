#include "jobs/block_pool.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>

namespace penstock::jobs {

BlockPool::BlockPool(std::uint32_t capacity)
    : capacity_(capacity), used_(capacity, false), free_heap_(capacity) {
  std::iota(free_heap_.begin(), free_heap_.end(), 0u);  // sorted, so a heap
}

bool BlockPool::allocate(std::uint32_t count, std::vector<std::uint32_t>& blocks) {
  if (count > free()) return false;
  for (std::uint32_t i = 0; i < count; ++i) {
    std::pop_heap(free_heap_.begin(), free_heap_.end(), std::greater<>{});
    const std::uint32_t block = free_heap_.back();
    free_heap_.pop_back();
    used_[block] = true;
    blocks.push_back(block);
  }
  used_count_ += count;
  return true;
}

void BlockPool::release(std::vector<std::uint32_t>& blocks) {
  for (const std::uint32_t block : blocks) {
    if (block >= capacity_ || !used_[block]) {
      throw std::logic_error("a KV block was released that is not in use");
    }
    used_[block] = false;
    free_heap_.push_back(block);
    std::push_heap(free_heap_.begin(), free_heap_.end(), std::greater<>{});
  }
  used_count_ -= static_cast<std::uint32_t>(blocks.size());
  blocks.clear();
}

}  // namespace penstock::jobs
