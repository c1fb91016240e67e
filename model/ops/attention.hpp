#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "io/dtype.hpp"
#include "model/ops/device.hpp"
#include "model/ops/host_buffer.hpp"
#include "model/ops/kv_layout.hpp"

namespace penstock::model {

// A sequence's rows of a step: row `first_row + i` is the token at `position + i`.
struct AttentionSequence {
  std::size_t first_row = 0;
  std::size_t rows = 0;
  std::size_t position = 0;
  const std::uint32_t* blocks = nullptr;  // block ids from position 0 on
};

// Causal attention of `heads` query heads over a paged cache with kv_heads heads (`heads` is a
// multiple of it):
//   out[row, head] = softmax(q . K^T / sqrt(head_dim)) . V over positions 0 … the row's own
// The row's own keys and values are in the cache already (kv_write). The cache is walked tile by
// tile from position 0 with an online softmax in f32 (Milakov and Gimelshein 2018), each (row,
// head) in the same order of operations whatever else is computed beside it: bits depend on
// neither batch, nor chunk, nor thread, nor which blocks hold the tokens.
struct Attention {
  std::span<const AttentionSequence> sequences;
  std::size_t heads = 0;
  io::DType dtype = io::DType::f32;  // of q and out: f32 or bf16
  std::size_t q_stride = 0;          // elements from row to row of q
  const void* q = nullptr;           // [rows, heads, head_dim], rotated
  KvLayout layout;
  const std::byte* cache = nullptr;  // of this layer
  void* out = nullptr;               // [rows, heads * head_dim]
};

// What attention needs beside its arguments, kept from call to call by its owner.
class AttentionScratch {
 public:
  AttentionScratch(const Cpu& device, std::size_t heads, const KvLayout& layout);

  // Rows of one sequence that one task computes together. No bit depends on it.
  std::size_t rows_per_task = 1;
  // One thread's share: queries, sums and output of rows_per_task * heads / kv_heads queries.
  std::size_t floats_per_thread = 0;
  HostBuffer buffer;
  struct Task {
    std::uint32_t sequence = 0;
    std::uint32_t first = 0;  // of the sequence's rows
    std::uint32_t rows = 0;
    std::uint32_t kv_head = 0;
  };
  std::vector<Task> tasks;
};

void attention(const Cpu& device, const Attention& args, AttentionScratch& scratch);

// ---- On the GPU. The same formula over a CudaKvLayout. Positions fall into splits of
// kAttentionSplitTokens tokens; a query's splits are computed each from an empty state, tile by
// tile, and merged in their order. Whether one block walks all splits of a query (prefill) or a
// block each (decode, where there are too few queries to fill the GPU) is a matter of speed: the
// operations on a query are the same and in the same order.

inline constexpr std::uint32_t kAttentionSplitTokens = 256;

// Work of one thread block: `queries` consecutive queries of a sequence and a kv head. A sequence's
// queries are numbered row by row, the heads of a kv head's group within a row.
struct AttentionTask {
  std::uint32_t row = 0;       // of the step: the sequence's first
  std::uint32_t position = 0;  // of that row
  std::uint32_t first = 0;     // query
  std::uint32_t queries = 0;
  std::uint32_t blocks = 0;  // where the sequence's block ids start in the block table
  std::uint32_t first_split = 0;
  std::uint32_t splits = 0;
  std::uint32_t partial = 0;  // where a lone split's result goes; kNoPartial: `out`
};
inline constexpr std::uint32_t kNoPartial = 0xFFFFFFFFu;

// `splits` partial results of the same queries, from slot `partial` on, that become their output.
struct AttentionMerge {
  std::uint32_t row = 0;
  std::uint32_t first = 0;
  std::uint32_t queries = 0;
  std::uint32_t partial = 0;
  std::uint32_t splits = 0;
};

// How many of each a step has; the kernels read them from the GPU's memory.
struct AttentionCounts {
  std::uint32_t wide = 0;
  std::uint32_t narrow = 0;
  std::uint32_t merges = 0;
};

// The work of one step, the same for all layers, in host memory; kept for its memory.
struct AttentionPlan {
  std::vector<AttentionTask> wide;    // many queries, all their splits
  std::vector<AttentionTask> narrow;  // a row's queries, a split
  std::vector<AttentionMerge> merges;
  std::uint32_t partials = 0;  // slots
  AttentionCounts counts() const {
    return {static_cast<std::uint32_t>(wide.size()), static_cast<std::uint32_t>(narrow.size()),
            static_cast<std::uint32_t>(merges.size())};
  }
};

// What of attention depends on model and GPU only.
struct AttentionShape {
  AttentionShape(const Cuda& device, std::size_t heads, io::DType dtype,
                 const CudaKvLayout& layout);  // ModelError where there is no kernel
  AttentionShape() = default;

  std::uint32_t group = 1;           // query heads of a kv head
  std::uint32_t wide_queries = 64;   // of a wide task at most; for plan_attention
  std::uint32_t narrow_queries = 1;  // of a narrow task: those of a row, 16 at most
  std::size_t partial_floats = 0;    // of a slot
};

// At most so many entries in the lists of a plan; they follow from the largest step.
struct AttentionLimits {
  std::uint32_t wide = 0;
  std::uint32_t narrow = 0;
  std::uint32_t merges = 0;
  std::uint32_t partials = 0;
};
// Of steps with at most `rows` rows in at most `sequences` sequences,
// and `context` tokens in a sequence. Memory for partial results is bounded by `partials`: rows
// beyond it are walked as prefill is.
AttentionLimits attention_limits(const AttentionShape& shape, std::uint32_t rows,
                                 std::uint32_t sequences, std::uint32_t context,
                                 std::uint32_t partials);

void plan_attention(const AttentionShape& shape, std::span<const SequenceStep> sequences,
                    const AttentionLimits& limits, AttentionPlan& plan);

struct CudaAttention {
  AttentionShape shape;
  // The plan's lists, and how many entries each has.
  const AttentionTask* wide = nullptr;
  const AttentionTask* narrow = nullptr;
  const AttentionMerge* merges = nullptr;
  const AttentionCounts* counts = nullptr;
  // What the grids are made for: never less than what `counts` will say whenever this launch is
  // replayed. Where it is 0, nothing is launched.
  AttentionCounts most;
  const std::uint32_t* block_table = nullptr;
  std::size_t heads = 0;
  io::DType dtype = io::DType::f32;  // of q and out
  std::size_t q_stride = 0;          // elements; q and rows of it lie at multiples of 16 bytes
  const void* q = nullptr;           // [rows, heads, head_dim], rotated
  CudaKvLayout layout;
  const std::byte* cache = nullptr;  // of this layer
  void* out = nullptr;               // [rows, heads * head_dim]
  float* partials = nullptr;         // [slots, shape.partial_floats]
};

// Throws ModelError for head_dim that is no multiple of 8 or more than 256.
void attention(const Cuda& device, const CudaAttention& args);

}  // namespace penstock::model
