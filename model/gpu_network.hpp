#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "model/config.hpp"
#include "model/gpu_sizes.hpp"
#include "model/gpu_step.hpp"
#include "model/ops/add.hpp"
#include "model/ops/attention.hpp"
#include "model/ops/embedding.hpp"
#include "model/ops/kv_layout.hpp"
#include "model/ops/kv_write.hpp"
#include "model/ops/linear.hpp"
#include "model/ops/rms_norm.hpp"
#include "model/ops/rope.hpp"
#include "model/ops/sample.hpp"
#include "model/ops/swiglu.hpp"
#include "model/stage_plan.hpp"

namespace penstock::model {

// LayerWeights in a GPU's memory, which belongs to somebody else.
struct GpuLayerWeights {
  const float* attn_norm = nullptr;
  std::unique_ptr<Linear> qkv;
  std::unique_ptr<Linear> o;
  const float* mlp_norm = nullptr;
  std::unique_ptr<Linear> gate_up;
  std::unique_ptr<Linear> down;
};

struct GpuWeights {
  const std::byte* embedding = nullptr;  // [vocab, hidden], first stage only
  std::vector<GpuLayerWeights> layers;
  const float* final_norm = nullptr;  // last stage only
  std::unique_ptr<Linear> head;       // last stage only
};

// What a stage's part of the network computes with. All memory is the GPU's and the stage's.
template <class Device>
struct GpuNetworkSetting {
  Device device;
  ModelConfig config;
  StageRange range;
  io::DType dtype = io::DType::bf16;
  CudaKvLayout layout;
  AttentionShape attention_shape;
  const GpuWeights* weights = nullptr;
  std::byte* buffers = nullptr;
  GpuBuffers places;  // in buffers
  const float* frequencies = nullptr;
  std::byte* cache = nullptr;
  std::uint64_t cache_layer_bytes = 0;
};

// One stage's part of the network: puts a step's kernels on the device's stream. `Device` is Cuda;
// tests have one that plays the kernels on the CPU.
template <class Device>
class GpuNetwork {
 public:
  explicit GpuNetwork(GpuNetworkSetting<Device> setting) : setting_(std::move(setting)) {}

  // From the step's lists, and on other stages than the first from x, to delta, which is still to
  // be added to x, or on the last stage to ids. `progress` is called between layers.
  void compute(const GpuStep& step, const std::function<void()>& progress) const;
  // out = x + delta: what the next stage starts from.
  void add_last(std::uint32_t rows, std::byte* out) const {
    add(setting_.device, setting_.dtype, buffer<void>(setting_.places.x),
        buffer<void>(setting_.places.delta), rows * hidden(), out);
  }

 private:
  static std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }
  std::size_t hidden() const { return size(setting_.config.hidden_size); }
  template <class T>
  T* buffer(std::uint64_t place) const {
    return reinterpret_cast<T*>(setting_.buffers + place);
  }
  template <class T>
  const T* list(std::size_t place) const {
    return reinterpret_cast<const T*>(setting_.buffers + setting_.places.lists + place);
  }
  void norm(std::uint32_t rows, std::uint64_t x, const void* delta, const float* weight,
            std::uint64_t out) const;
  void attend(const GpuStep& step, std::size_t layer, const void* delta) const;
  void choose(const GpuStep& step) const;

  GpuNetworkSetting<Device> setting_;
};

template <class Device>
void GpuNetwork<Device>::norm(std::uint32_t rows, std::uint64_t x, const void* delta,
                              const float* weight, std::uint64_t out) const {
  RmsNorm args;
  args.rows = rows;
  args.width = hidden();
  args.dtype = setting_.dtype;
  args.x = buffer<void>(x);
  args.delta = delta;
  args.weight = weight;
  args.eps = static_cast<float>(setting_.config.rms_norm_eps);
  args.out = buffer<void>(out);
  rms_norm(setting_.device, args);
}

template <class Device>
void GpuNetwork<Device>::attend(const GpuStep& step, std::size_t layer, const void* delta) const {
  const GpuBuffers& places = setting_.places;
  const GpuLayerWeights& weights = setting_.weights->layers[layer];
  std::byte* const cache = setting_.cache + layer * setting_.cache_layer_bytes;
  const std::size_t heads = size(setting_.config.num_heads);
  const std::size_t qkv_width = (heads + 2 * setting_.layout.kv_heads) * setting_.layout.head_dim;
  norm(step.rows, places.x, delta, weights.attn_norm, places.normed);
  weights.qkv->apply(step.rows, buffer<void>(places.normed), buffer<void>(places.qkv));

  RopeKvWrite write;
  write.rows = step.rows;
  write.heads = heads;
  write.dtype = setting_.dtype;
  write.row_stride = qkv_width;
  write.qkv = buffer<void>(places.qkv);
  write.table = buffer<float>(places.rope_table);
  write.blocks = list<std::uint32_t>(step.layout.row_blocks);
  write.positions = list<std::uint32_t>(step.layout.positions);
  write.layout = setting_.layout;
  write.cache = cache;
  rope_and_kv_write(setting_.device, write);

  CudaAttention args;
  args.shape = setting_.attention_shape;
  args.wide = list<AttentionTask>(step.layout.wide);
  args.narrow = list<AttentionTask>(step.layout.narrow);
  args.merges = list<AttentionMerge>(step.layout.merges);
  args.counts = list<AttentionCounts>(step.layout.counts);
  args.most = step.most;
  args.block_table = list<std::uint32_t>(step.layout.table);
  args.heads = heads;
  args.dtype = setting_.dtype;
  args.q_stride = qkv_width;
  args.q = buffer<void>(places.qkv);
  args.layout = setting_.layout;
  args.cache = cache;
  args.out = buffer<void>(places.attended);
  args.partials = buffer<float>(places.partials);
  attention(setting_.device, args);
}

template <class Device>
void GpuNetwork<Device>::compute(const GpuStep& step, const std::function<void()>& progress) const {
  const GpuBuffers& places = setting_.places;
  const std::size_t row_bytes = hidden() * io::size_of(setting_.dtype);
  const std::size_t inner = size(setting_.config.intermediate_size);
  if (setting_.range.first) {
    gather_rows(setting_.device, setting_.weights->embedding, row_bytes,
                {list<std::int32_t>(step.layout.tokens), step.rows}, buffer<std::byte>(places.x));
  }
  rope_table(setting_.device, {list<std::uint32_t>(step.layout.positions), step.rows},
             {setting_.frequencies, setting_.layout.head_dim / 2},
             buffer<float>(places.rope_table));
  const void* delta = nullptr;  // what the layer before has still to add to x
  for (std::size_t i = 0; i < setting_.weights->layers.size(); ++i) {
    const GpuLayerWeights& layer = setting_.weights->layers[i];
    attend(step, i, delta);
    layer.o->apply(step.rows, buffer<void>(places.attended), buffer<void>(places.delta));
    delta = buffer<void>(places.delta);
    norm(step.rows, places.x, delta, layer.mlp_norm, places.normed);
    layer.gate_up->apply(step.rows, buffer<void>(places.normed), buffer<void>(places.gate_up));
    swiglu(setting_.device, setting_.dtype, step.rows, inner, buffer<void>(places.gate_up),
           buffer<void>(places.activated));
    layer.down->apply(step.rows, buffer<void>(places.activated), buffer<void>(places.delta));
    progress();
  }
  if (step.samples > 0) choose(step);
}

template <class Device>
void GpuNetwork<Device>::choose(const GpuStep& step) const {
  const GpuBuffers& places = setting_.places;
  const std::size_t row_bytes = hidden() * io::size_of(setting_.dtype);
  std::uint64_t x = places.x;
  std::uint64_t delta = places.delta;
  if (!step.all_sampled) {
    const std::span<const std::int32_t> rows(list<std::int32_t>(step.layout.sample_rows),
                                             step.samples);
    for (const auto& [from, to] :
         {std::pair(places.x, places.sample_x), std::pair(places.delta, places.sample_delta)}) {
      gather_rows(setting_.device, buffer<std::byte>(from), row_bytes, rows, buffer<std::byte>(to));
    }
    x = places.sample_x;
    delta = places.sample_delta;
  }
  norm(step.samples, x, buffer<void>(delta), setting_.weights->final_norm, places.sample_in);
  setting_.weights->head->apply(step.samples, buffer<void>(places.sample_in),
                                buffer<void>(places.logits));
  Sample args;
  args.rows = list<SampleRow>(step.layout.sampling);
  args.count = list<std::uint32_t>(step.layout.sample_count);
  args.most = step.samples;
  args.vocab = size(setting_.config.vocab_size);
  args.logits = buffer<float>(places.logits);
  args.work = buffer<float>(places.sample_work);
  args.ids = buffer<std::int32_t>(places.ids);
  sample(setting_.device, args);
}

}  // namespace penstock::model
