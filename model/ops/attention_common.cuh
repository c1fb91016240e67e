#pragma once

// What the kernels of attention have in common; see simt_cuda.cuh for what is included first.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>

#include "model/ops/attention.hpp"
#include "model/ops/elements_cuda.cuh"

namespace penstock::model {

inline constexpr unsigned kWarpQueries = 16;  // rows of an mma
inline constexpr unsigned kMostNarrowQueries = kWarpQueries;
inline constexpr unsigned kTileTokens = 64;
inline constexpr unsigned kSplitTiles = kAttentionSplitTokens / kTileTokens;
inline constexpr float kNothing = -__builtin_huge_valf();  // the maximum of no scores

// CudaAttention with all sizes worked out.
struct AttentionArgs {
  const std::uint32_t* block_table;
  const std::byte* q;
  const std::byte* cache;
  std::byte* out;
  float* partials;
  std::size_t q_stride;  // elements
  std::size_t block_bytes;
  std::size_t head_bytes;
  std::size_t tile_bytes;
  std::size_t partial_floats;
  unsigned heads;
  unsigned group;
  unsigned head_dim;
  unsigned narrow_queries;
  io::DType dtype;  // of q and out
  io::DType kv_dtype;
  float scale;  // log2(e) / sqrt(head_dim)
};

inline AttentionArgs attention_args(const CudaAttention& from) {
  AttentionArgs args{};
  args.block_table = from.block_table;
  args.q = static_cast<const std::byte*>(from.q);
  args.cache = from.cache;
  args.out = static_cast<std::byte*>(from.out);
  args.partials = from.partials;
  args.q_stride = from.q_stride;
  args.block_bytes = from.layout.block_bytes();
  args.head_bytes = from.layout.head_bytes();
  args.tile_bytes = from.layout.tile_bytes();
  args.partial_floats = from.shape.partial_floats;
  args.heads = static_cast<unsigned>(from.heads);
  args.group = from.shape.group;
  args.head_dim = static_cast<unsigned>(from.layout.head_dim);
  args.narrow_queries = from.shape.narrow_queries;
  args.dtype = from.dtype;
  args.kv_dtype = from.layout.dtype;
  args.scale = static_cast<float>(std::numbers::log2e /
                                  std::sqrt(static_cast<double>(from.layout.head_dim)));
  return args;
}

// Where a query of a task is, and which tokens it sees.
struct QueryPlace {
  unsigned row;
  unsigned head;
  unsigned position;
};

__host__ __device__ inline QueryPlace query_place(const AttentionTask& task, unsigned group,
                                                  unsigned kv_head, unsigned query) {
  const unsigned flat = task.first + query;
  const unsigned row = flat / group;
  return {task.row + row, kv_head * group + flat % group, task.position + row};
}

// The position behind the last token that a query of the task sees.
__host__ __device__ inline unsigned task_end(const AttentionTask& task, unsigned group) {
  return task.position + (task.first + task.queries - 1) / group + 1;
}

// A partial result: head_dim sums, then maximum and total, in room for 4 more floats.
__host__ __device__ inline std::size_t partial_offset(const AttentionArgs& args, unsigned slot,
                                                      unsigned kv_head, unsigned query) {
  return slot * args.partial_floats +
         (std::size_t{kv_head} * args.narrow_queries + query) * (args.head_dim + 4);
}

// What a split's state and the state of those before it are multiplied by when they are merged.
// Merging an empty split (maximum kNothing, all sums 0) changes nothing but perhaps a zero's sign.
struct MergeScale {
  float before;
  float split;
};
__device__ inline MergeScale merge_scale(float& maximum, float split_maximum) {
  const float now = fmaxf(maximum, split_maximum);
  const MergeScale scale{simt::exp2_fast(maximum - now), simt::exp2_fast(split_maximum - now)};
  maximum = now;
  return scale;
}
__device__ inline float merged(const MergeScale& scale, float before, float split) {
  return fmaf(split, scale.split, before * scale.before);
}
// The sum with zero makes of -0 a 0: how many empty splits were merged must not show.
__device__ inline float normalized(float sum, float total) { return sum / total + 0.0f; }

// The step of the online softmax of one query: its maximum grows to `now`.
struct SoftmaxStep {
  float shift;  // what scores are reduced by
  float decay;  // what is left of the sums so far
};
__device__ inline SoftmaxStep softmax_step(float& maximum, float top) {
  const float now = fmaxf(maximum, top);
  // While a query has seen nothing there is nothing to shift; all its weights are 2^-inf = 0.
  const float shift = now == kNothing ? 0.0f : now;
  const SoftmaxStep step{shift, simt::exp2_fast(maximum - shift)};
  maximum = now;
  return step;
}

}  // namespace penstock::model
