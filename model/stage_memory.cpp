#include "model/stage_memory.hpp"

#include <algorithm>

#include "model/gpu_sizes.hpp"
#include "model/memory_places.hpp"
#include "model/step_lists.hpp"
#include "model/weights.hpp"

namespace penstock::model {
namespace {

std::uint64_t size(std::int64_t value) { return static_cast<std::uint64_t>(value); }

std::uint64_t weight_bytes(const ModelConfig& config, const StageRange& range, io::DType dtype) {
  MemoryPlaces places(kGpuAlignment);
  for (const WeightSpec& spec : weight_specs(config)) {
    const bool here = spec.group == WeightGroup::layer
                          ? spec.layer >= range.begin && spec.layer < range.end
                          : (spec.group == WeightGroup::embedding ? range.first : range.last);
    if (!here) continue;
    std::uint64_t elements = 1;
    for (const std::uint64_t n : spec.shape) elements *= n;
    places.add(elements, spec.is_matrix ? io::size_of(dtype) : sizeof(float));
  }
  return places.end();
}

// As Hopper's kernel has it.
AttentionShape attention_shape(const ModelConfig& config) {
  AttentionShape shape;
  shape.group = static_cast<std::uint32_t>(config.num_heads / config.num_kv_heads);
  shape.narrow_queries = std::min(shape.group, 16u);
  shape.partial_floats =
      std::size_t{8} * shape.narrow_queries * static_cast<std::size_t>(config.head_dim + 4);
  return shape;
}

}  // namespace

std::uint64_t StageMemory::kv_bytes(std::uint64_t memory_bytes) const {
  const std::uint64_t resident = weight_bytes + step_bytes;
  return gpu_kv_bytes(memory_bytes - std::min(memory_bytes, resident), memory_bytes,
                      activation_bytes, kv_block_bytes);
}

StageMemory stage_memory(const ModelConfig& config, const StageRange& range,
                         const StageOptions& options) {
  const GpuStepLimits limits = gpu_step_limits(config, options);
  const AttentionShape shape = attention_shape(config);
  const AttentionLimits attention = gpu_attention_limits(shape, limits);
  const StepRoom room = largest_step(limits, shape, attention);
  StageMemory memory;
  memory.weight_bytes = weight_bytes(config, range, options.dtype);
  memory.step_bytes = gpu_buffers(config, range, options, limits, room.rows, room.samples, shape,
                                  attention, StepLayout(room).bytes)
                          .bytes;
  memory.activation_bytes =
      gpu_activation_bytes(range, options, size(config.hidden_size) * io::size_of(options.dtype));
  memory.kv_block_bytes = size(range.layers()) * kKvBlockTokens * 2 * size(config.num_kv_heads) *
                          size(config.head_dim) * io::size_of(options.kv_dtype);
  return memory;
}

}  // namespace penstock::model
