#pragma once

#include <cstdint>

#include "model/config.hpp"
#include "model/ops/attention.hpp"
#include "model/stage.hpp"
#include "model/stage_plan.hpp"
#include "model/stage_weights.hpp"
#include "model/step_lists.hpp"

namespace penstock::model {

inline constexpr std::uint32_t kMostRows = 1u << 20;  // of a step

// What a stage on a GPU must have room for, from its options and the config: all that a step may
// have, decided before anything is allocated.
struct GpuStepLimits {
  std::uint32_t rows = 0;         // of the largest step
  std::uint32_t samples = 0;      // likewise; also its sequences
  std::uint32_t context = 0;      // tokens of the longest sequence
  std::uint32_t graph_rows = 0;   // rows of the largest decode graph
  std::uint32_t padded_rows = 0;  // of a step or a graph, whichever has more
  std::uint32_t padded_samples = 0;
  std::uint32_t sequences_alive = 0;   // on all slots
  std::uint32_t penalty_capacity = 0;  // entries of a penalty table
};
// ModelError for options that make no stage.
GpuStepLimits gpu_step_limits(const ModelConfig& config, const StageOptions& options);

// Attention's partial results may take so much, whatever the context: more memory would only make
// rare steps faster.
inline constexpr std::uint64_t kMostPartialBytes = std::uint64_t{256} << 20;
AttentionLimits gpu_attention_limits(const AttentionShape& shape, const GpuStepLimits& limits);

// No step's lists, those of graphs included, need more.
StepRoom largest_step(const GpuStepLimits& limits, const AttentionShape& shape,
                      const AttentionLimits& attention);

// Where the buffers of a step lie in one piece of the GPU's memory, in bytes from its start.
struct GpuBuffers {
  std::uint64_t x = 0;          // [rows, hidden]: the residual stream
  std::uint64_t normed = 0;     // [rows, hidden]
  std::uint64_t qkv = 0;        // [rows, heads of q, k and v, head_dim]
  std::uint64_t attended = 0;   // [rows, heads, head_dim]
  std::uint64_t delta = 0;      // [rows, hidden]: what attention or MLP adds to x
  std::uint64_t gate_up = 0;    // [rows, 2 * intermediate]
  std::uint64_t activated = 0;  // [rows, intermediate]
  std::uint64_t rope_table = 0;
  std::uint64_t partials = 0;  // attention's
  std::uint64_t lists = 0;     // of the step, as StepLayout says
  // Of the last stage.
  std::uint64_t sample_x = 0;      // [samples, hidden]
  std::uint64_t sample_delta = 0;  // [samples, hidden]
  std::uint64_t sample_in = 0;     // [samples, hidden]
  std::uint64_t logits = 0;        // [samples, vocab]
  std::uint64_t sample_work = 0;   // [samples, vocab]
  std::uint64_t ids = 0;           // [samples]
  std::uint64_t penalties = 0;     // a table for each sequence that may be alive
  std::uint64_t penalty_table_bytes = 0;

  std::uint64_t bytes = 0;
};
// `rows` and `samples` as the products pad them. ModelError where the sum does not fit in 63 bits.
GpuBuffers gpu_buffers(const ModelConfig& config, const StageRange& range,
                       const StageOptions& options, const GpuStepLimits& limits, std::uint64_t rows,
                       std::uint64_t samples, const AttentionShape& shape,
                       const AttentionLimits& attention, std::uint64_t list_bytes);

// What proving the stage's products takes at most, one after the other.
std::uint64_t gpu_proof_bytes(const StageShapes& shapes, bool last);

// What is left to CUDA of a GPU's memory: for graphs, code that it loads when it is first used, and
// what it keeps for kernels' stacks.
std::uint64_t gpu_reserve_bytes(std::uint64_t total_bytes);
// What is still to be allocated of make_activations(): in and out of as many steps as there are
// slots. ModelError where that does not fit in 63 bits.
std::uint64_t gpu_activation_bytes(const StageRange& range, const StageOptions& options,
                                   std::uint64_t row_bytes);
// Of `free_bytes`, what KV blocks may have beside the reserve, what is `claimed` and the scratch
// block.
std::uint64_t gpu_kv_bytes(std::uint64_t free_bytes, std::uint64_t total_bytes,
                           std::uint64_t claimed, std::uint64_t block_bytes);

// The cache of a stage: for each layer `blocks` blocks and the scratch block behind them.
struct GpuCache {
  std::uint64_t layer_bytes = 0;
  std::uint64_t bytes = 0;
};
// ModelError where the numbers do not fit in 63 bits, or `blocks` is 0 or all that 32 bits count.
GpuCache gpu_cache(std::uint64_t layer_block_bytes, std::uint64_t layers, std::uint32_t blocks);

}  // namespace penstock::model
