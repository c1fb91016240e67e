#include "model/gpu_sizes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "model/decode_graph.hpp"
#include "model/error.hpp"
#include "model/memory_places.hpp"
#include "model/ops/product_rows.hpp"
#include "model/ops/sample.hpp"

namespace penstock::model {
namespace {

std::uint64_t size(std::int64_t value) { return static_cast<std::uint64_t>(value); }

std::uint32_t tasks_per_row(const AttentionShape& shape) {
  return (shape.group + shape.narrow_queries - 1) / shape.narrow_queries;
}

}  // namespace

GpuStepLimits gpu_step_limits(const ModelConfig& config, const StageOptions& options) {
  if (options.threads < 1 || options.max_rows < 1 || options.slots < 1) {
    throw ModelError("a stage needs at least one thread, one row and one slot");
  }
  if (options.max_rows > kMostRows) {
    throw ModelError("a step on a GPU has at most 1,048,576 rows");
  }
  // Attention numbers a step's queries by 32 bits.
  if (size(config.num_heads) > std::numeric_limits<std::uint32_t>::max() / options.max_rows) {
    throw ModelError(fmt::format("steps of {} rows with {} heads are too large for a GPU",
                                 options.max_rows, config.num_heads));
  }
  // Before weights are loaded; the sampler itself would say so only then.
  if (size(config.vocab_size) > kMostSampleVocab) {
    throw ModelError(fmt::format("a GPU samples from at most {} tokens, the vocabulary has {}",
                                 kMostSampleVocab, config.vocab_size));
  }
  GpuStepLimits limits;
  limits.rows = options.max_rows;
  limits.samples = std::clamp(options.max_samples, 1u, options.max_rows);
  const std::uint64_t context = std::min<std::uint64_t>(
      size(config.max_position),
      options.max_context > 0 ? options.max_context : std::numeric_limits<std::uint32_t>::max());
  limits.context = static_cast<std::uint32_t>(context);
  limits.graph_rows = graph_rows(std::min(limits.samples, kMostGraphRows));
  limits.padded_rows = std::max(limits.rows, limits.graph_rows);
  limits.padded_samples = std::max(limits.samples, limits.graph_rows);
  if (__builtin_mul_overflow(limits.samples, options.slots, &limits.sequences_alive)) {
    throw ModelError("more slots and sequences than can be counted");
  }
  limits.penalty_capacity = static_cast<std::uint32_t>(std::min(context, size(config.vocab_size)));
  return limits;
}

AttentionLimits gpu_attention_limits(const AttentionShape& shape, const GpuStepLimits& limits) {
  const std::uint64_t partial_bytes =
      std::max<std::uint64_t>(shape.partial_floats * sizeof(float), 1);
  const auto partials = static_cast<std::uint32_t>(std::min<std::uint64_t>(
      kMostPartialBytes / partial_bytes, std::numeric_limits<std::uint32_t>::max() / 4));
  return attention_limits(shape, limits.rows, limits.samples, limits.context, partials);
}

StepRoom largest_step(const GpuStepLimits& limits, const AttentionShape& shape,
                      const AttentionLimits& attention) {
  StepRoom room;
  room.rows = limits.padded_rows;
  room.samples = limits.padded_samples;
  room.wide = attention.wide;
  // A graph's tasks are a power of two times those of its rows.
  const std::uint32_t graph_tasks = limits.graph_rows * tasks_per_row(shape);
  room.narrow = 2 * (attention.narrow + graph_tasks);
  room.merges = std::max(attention.merges, graph_tasks);
  room.table = std::uint64_t{limits.samples} *
               ((std::uint64_t{limits.context} + kKvBlockTokens - 1) / kKvBlockTokens);
  return room;
}

GpuBuffers gpu_buffers(const ModelConfig& config, const StageRange& range,
                       const StageOptions& options, const GpuStepLimits& limits, std::uint64_t rows,
                       std::uint64_t samples, const AttentionShape& shape,
                       const AttentionLimits& attention, std::uint64_t list_bytes) {
  const std::uint64_t element = io::size_of(options.dtype);
  const std::uint64_t row = size(config.hidden_size) * element;
  const std::uint64_t q = size(config.num_heads * config.head_dim);
  const std::uint64_t kv = size(config.num_kv_heads * config.head_dim);
  const std::uint64_t inner = size(config.intermediate_size);
  const std::uint64_t vocab = size(config.vocab_size);
  MemoryPlaces places(kGpuAlignment);
  GpuBuffers buffers;
  buffers.x = places.add(rows, row);
  buffers.normed = places.add(rows, row);
  buffers.qkv = places.add(rows, (q + 2 * kv) * element);
  buffers.attended = places.add(rows, q * element);
  buffers.delta = places.add(rows, row);
  buffers.gate_up = places.add(rows, 2 * inner * element);
  buffers.activated = places.add(rows, inner * element);
  buffers.rope_table = places.add(rows, size(config.head_dim) * sizeof(float));
  buffers.partials = places.add(attention.partials, shape.partial_floats * sizeof(float));
  buffers.lists = places.add(1, list_bytes);
  if (range.last) {
    buffers.sample_x = places.add(samples, row);
    buffers.sample_delta = places.add(samples, row);
    buffers.sample_in = places.add(samples, row);
    buffers.logits = places.add(samples, vocab * sizeof(float));
    buffers.sample_work = places.add(samples, vocab * sizeof(float));
    buffers.ids = places.add(samples, sizeof(std::int32_t));
    MemoryPlaces table(kGpuAlignment);
    table.add(1, penalty_table_bytes(limits.penalty_capacity));
    buffers.penalty_table_bytes = table.end();
    buffers.penalties = places.add(limits.sequences_alive, buffers.penalty_table_bytes);
  }
  buffers.bytes = places.end();
  return buffers;
}

std::uint64_t gpu_proof_bytes(const StageShapes& shapes, bool last) {
  std::uint64_t most = 0;
  for (const LinearShape* shape :
       {&shapes.qkv, &shapes.o, &shapes.gate_up, &shapes.down, last ? &shapes.head : nullptr}) {
    if (shape == nullptr) continue;
    MemoryPlaces places(kGpuAlignment);
    places.add(shape->out_features, shape->in_features * io::size_of(shape->dtype));
    places.add(kMostProductRows, shape->in_features * io::size_of(shape->dtype));
    // A call's results, those that are expected of 16 rows, a bias.
    places.add(kMostProductRows + 16 + 1, shape->out_features * io::size_of(shape->out_dtype));
    most = std::max(most, places.end());
  }
  return most;
}

std::uint64_t gpu_reserve_bytes(std::uint64_t total_bytes) {
  return (std::uint64_t{512} << 20) + total_bytes / 64;
}

std::uint64_t gpu_activation_bytes(const StageRange& range, const StageOptions& options,
                                   std::uint64_t row_bytes) {
  MemoryPlaces step(kGpuAlignment);
  step.add(options.max_rows, row_bytes);
  MemoryPlaces all(kGpuAlignment);
  for (const bool has_edge : {!range.first, !range.last}) {
    if (has_edge) all.add(options.slots, step.end());
  }
  return all.end();
}

std::uint64_t gpu_kv_bytes(std::uint64_t free_bytes, std::uint64_t total_bytes,
                           std::uint64_t claimed, std::uint64_t block_bytes) {
  for (const std::uint64_t part : {gpu_reserve_bytes(total_bytes), claimed, block_bytes}) {
    if (free_bytes < part) return 0;
    free_bytes -= part;
  }
  return free_bytes;
}

GpuCache gpu_cache(std::uint64_t layer_block_bytes, std::uint64_t layers, std::uint32_t blocks) {
  if (blocks == 0) throw ModelError("a KV cache of no blocks holds no sequence");
  if (blocks == std::numeric_limits<std::uint32_t>::max()) {
    throw ModelError("a KV cache on a GPU has at most 4,294,967,294 blocks");
  }
  MemoryPlaces layer(kGpuAlignment);
  layer.add(std::uint64_t{blocks} + 1, layer_block_bytes);
  MemoryPlaces all(kGpuAlignment);
  all.add(layers, layer.end());
  return {layer.end(), all.end()};
}

}  // namespace penstock::model
