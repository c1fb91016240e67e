#pragma once

#include <cstddef>

#include "io/dtype.hpp"
#include "model/step_plan.hpp"

namespace penstock::model {

// How keys and values of one layer lie in the paged cache: [blocks][kv_heads][key tile, value
// tile], so that what one head of one block needs is one contiguous read.
//   key tile    [head_dim][kKvBlockTokens]: scores of a whole tile are sums along head_dim, which
//               need no sum across vector lanes
//   value tile  [kKvBlockTokens][value_stride]: rows padded to full vectors, with anything
struct KvLayout {
  std::size_t kv_heads = 0;
  std::size_t head_dim = 0;
  io::DType dtype = io::DType::bf16;  // f32 or bf16

  static constexpr std::size_t kTokens = kKvBlockTokens;
  std::size_t value_stride() const { return (head_dim + 15) / 16 * 16; }  // elements
  std::size_t key_tile_bytes() const { return head_dim * kTokens * io::size_of(dtype); }
  std::size_t value_tile_bytes() const { return value_stride() * kTokens * io::size_of(dtype); }
  std::size_t head_bytes() const { return key_tile_bytes() + value_tile_bytes(); }
  std::size_t block_bytes() const { return kv_heads * head_bytes(); }
};

// The same on a GPU: [blocks][kv_heads][key tile, value tile], both tiles [kKvBlockTokens]
// [head_dim]: rows are copied to shared memory 16 bytes at a time, and the tensor cores' loads
// transpose where they must.
struct CudaKvLayout {
  std::size_t kv_heads = 0;
  std::size_t head_dim = 0;  // a multiple of 8
  io::DType dtype = io::DType::bf16;

  static constexpr std::size_t kTokens = kKvBlockTokens;
  std::size_t tile_bytes() const { return kTokens * head_dim * io::size_of(dtype); }
  std::size_t head_bytes() const { return 2 * tile_bytes(); }
  std::size_t block_bytes() const { return kv_heads * head_bytes(); }
};

}  // namespace penstock::model
