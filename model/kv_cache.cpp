#include "model/kv_cache.hpp"

#include <fmt/format.h>

#include <limits>

#include "model/error.hpp"
#include "model/host_memory.hpp"

namespace penstock::model {

KvCache::KvCache(const KvLayout& layout, std::size_t layers, std::uint32_t blocks)
    : blocks_(blocks) {
  if (blocks == 0) throw ModelError("a KV cache of no blocks holds no sequence");
  const std::size_t block_bytes = layout.block_bytes() * layers;
  const std::uint64_t available = available_memory_bytes();
  if (block_bytes > std::numeric_limits<std::size_t>::max() / blocks ||
      block_bytes * blocks > available) {
    throw ModelError(fmt::format(
        "a KV cache of {} blocks of {} tokens takes {} bytes for each block, more together than "
        "the {} bytes of memory that are available; give it less memory",
        blocks, kKvBlockTokens, block_bytes, available));
  }
  layer_bytes_ = layout.block_bytes() * blocks;
  buffer_ = HostBuffer::lazy(layer_bytes_ * layers, "the KV cache");
}

}  // namespace penstock::model
