#pragma once

#include <cstddef>
#include <cstdint>

#include "model/ops/host_buffer.hpp"
#include "model/ops/kv_layout.hpp"

namespace penstock::model {

// The paged KV cache of one stage: for each of its layers, blocks of kKvBlockTokens tokens. Which
// block belongs to whom is the plan's business. On the host; blocks take memory when they are first
// written.
class KvCache {
 public:
  KvCache() = default;
  // Throws ModelError when memory does not suffice, saying how much it takes and how much there is.
  KvCache(const KvLayout& layout, std::size_t layers, std::uint32_t blocks);

  std::uint32_t blocks() const { return blocks_; }
  std::byte* layer(std::size_t index) const { return buffer_.data() + index * layer_bytes_; }

 private:
  std::uint32_t blocks_ = 0;
  std::size_t layer_bytes_ = 0;
  HostBuffer buffer_;
};

}  // namespace penstock::model
