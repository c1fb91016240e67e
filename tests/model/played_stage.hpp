#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "model/gpu_network.hpp"
#include "model/gpu_samplers.hpp"
#include "model/gpu_sizes.hpp"
#include "model/gpu_step.hpp"
#include "model/load_weights.hpp"
#include "model/stage.hpp"
#include "model/stage_weights.hpp"
#include "model/weight_places.hpp"
#include "model/weight_stream.hpp"
#include "tests/model/ops/emulated.hpp"

namespace penstock::model {

// A GPU stage without a GPU: its lists, its buffers, its network and its kernels, played on the CPU
// (tests/support/simt.hpp), with the CPU's products. A decode step is computed as its graph would
// be. All memory starts as NaN.
class PlayedStage : public Stage {
 public:
  PlayedStage(const io::CheckpointReader& checkpoint, const ModelConfig& config,
              const StageRange& range, const StageOptions& options)
      : config_(config),
        range_(range),
        limits_(gpu_step_limits(config, options)),
        layout_{size(config.num_kv_heads), size(config.head_dim), options.kv_dtype},
        shape_(attention_shape(Emulated{}, size(config.num_heads), options.dtype, layout_)),
        attention_(gpu_attention_limits(shape_, limits_)),
        room_(largest_step(limits_, shape_, attention_)),
        maker_(limits_, shape_, attention_, range.last),
        row_bytes_(size(config.hidden_size) * io::size_of(options.dtype)),
        dtype_(options.dtype),
        factory_(make_linear_factory(Cpu{1})),
        frequencies_(rope_frequencies(config)) {
    load(checkpoint, options);
    places_ = gpu_buffers(config, range, options, limits_, factory_->padded_rows(room_.rows),
                          factory_->padded_rows(room_.samples), shape_, attention_,
                          StepLayout(room_).bytes);
    buffers_.reset(places_.bytes);
    if (!range.last) return;
    std::vector<PenaltyTable*> tables;
    for (std::uint32_t i = 0; i < limits_.sequences_alive; ++i) {
      tables.push_back(reinterpret_cast<PenaltyTable*>(buffers_.data() + places_.penalties +
                                                       i * places_.penalty_table_bytes));
    }
    samplers_ = GpuSamplers(tables, size(config.vocab_size), limits_.penalty_capacity);
  }

  std::size_t activation_row_bytes() const override { return row_bytes_; }
  std::uint64_t weight_bytes() const override { return memory_.size(); }
  std::uint64_t kv_block_bytes() const override {
    return layout_.block_bytes() * weights_.layers.size();
  }
  LoadReport load_report() const override { return {}; }
  std::uint64_t kv_memory_bytes() const override { return 0; }
  std::unique_ptr<ActivationBuffer> make_activations(std::size_t bytes) const override {
    return std::make_unique<Activations>(bytes);
  }
  void allocate_kv(std::uint32_t blocks) override {
    const GpuCache cache = gpu_cache(layout_.block_bytes(), weights_.layers.size(), blocks);
    cache_.reset(cache.bytes);
    blocks_ = blocks;
    network_ = std::make_unique<GpuNetwork<Emulated>>(GpuNetworkSetting<Emulated>{
        Emulated{}, config_, range_, dtype_, layout_, shape_, &weights_, buffers_.data(), places_,
        frequencies_.data(), cache_.data(), cache.layer_bytes});
  }
  void begin_run() override { samplers_.clear(); }

  void forward(const StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override {
    sampling_.clear();
    if (range_.last) {
      samplers_.update(plan, [](PenaltyTable* to, std::span<const std::byte> table) {
        std::memcpy(static_cast<void*>(to), table.data(), table.size());
      });
      samplers_.rows(plan, sampling_);
    }
    if (plan.rows() == 0) return;
    // As a ring would have them: what is left of another step lies behind.
    std::vector<std::byte> lists(StepLayout(room_).bytes, std::byte{0x55});
    const GpuStep step = maker_.make(plan, sampling_, blocks_, lists);
    std::memcpy(buffers_.data() + places_.lists, lists.data(), step.layout.bytes);
    if (!in.empty()) std::memcpy(buffers_.data() + places_.x, in.data(), in.size());
    // As a graph is replayed: with all that its first step's launches were made of.
    const GpuStep* const captured = step.key ? graphs_.find(*step.key) : nullptr;
    network_->compute(captured == nullptr ? step : *captured, progress);
    replayed_ += captured != nullptr;
    if (step.key && captured == nullptr) graphs_.insert(*step.key, step);
    if (!range_.last) network_->add_last(plan.rows(), out.data());
  }
  bool ready() override { return true; }
  std::span<const std::int32_t> sampled() const override {
    return {reinterpret_cast<const std::int32_t*>(buffers_.data() + places_.ids), sampling_.size()};
  }
  std::span<const float> logits() const override {
    return {reinterpret_cast<const float*>(buffers_.data() + places_.logits),
            sampling_.size() * size(config_.vocab_size)};
  }
  std::string numeric_class() const override { return "played"; }

  int replayed() const { return replayed_; }  // steps, from graphs

 private:
  // NaN in every dtype, aligned as a GPU's.
  class Memory {
   public:
    void reset(std::size_t bytes) {
      bytes_.reset(new (std::align_val_t{256}) std::byte[bytes]);
      std::memset(bytes_.get(), 0xFF, bytes);
      size_ = bytes;
    }
    std::byte* data() const { return bytes_.get(); }
    std::size_t size() const { return size_; }

   private:
    struct Free {
      void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t{256}); }
    };
    std::unique_ptr<std::byte[], Free> bytes_;
    std::size_t size_ = 0;
  };

  class Activations : public ActivationBuffer {
   public:
    explicit Activations(std::size_t bytes) { memory_.reset(bytes); }
    std::span<std::byte> bytes() const override { return {memory_.data(), memory_.size()}; }

   private:
    Memory memory_;
  };

  class Sink : public WeightSink {
   public:
    explicit Sink(std::byte* to) : to_(to), room_(kMostPieceBytes) {}
    std::span<std::byte> room(std::size_t bytes) override { return std::span(room_).first(bytes); }
    void put(std::uint64_t place, std::span<const std::byte> bytes) override {
      std::memcpy(to_ + place, bytes.data(), bytes.size());
    }
    void finish() override {}

   private:
    std::byte* to_;
    std::vector<std::byte> room_;
  };

  static std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

  std::unique_ptr<Linear> product(const LinearShape& shape, const WeightPlaces::Product& place) {
    std::vector<float> bias(shape.bias ? shape.out_features : 0);
    io::convert(memory_.data() + place.bias, shape.dtype, bias.data(), io::DType::f32, bias.size());
    return factory_->make(shape, memory_.data() + place.weight, shape.bias ? bias.data() : nullptr);
  }

  void load(const io::CheckpointReader& checkpoint, const StageOptions& options) {
    const LoadProgress progress;
    const WeightLoader tensors(checkpoint, config_, range_, options, progress);
    const WeightPlaces places = place_weights(tensors, config_, range_, options);
    memory_.reset(places.bytes);
    stream_weights(
        checkpoint, places.pieces, [&] { return std::make_unique<Sink>(memory_.data()); }, 2,
        progress);
    const StageShapes shapes = stage_shapes(config_, options);
    prepare_products(*factory_, config_, range_, options);
    const auto floats = [&](std::uint64_t place) {
      return reinterpret_cast<const float*>(memory_.data() + place);
    };
    if (range_.first) weights_.embedding = memory_.data() + places.embedding;
    for (const auto& place : places.layers) {
      weights_.layers.push_back({floats(place.attn_norm), product(shapes.qkv, place.qkv),
                                 product(shapes.o, place.o), floats(place.mlp_norm),
                                 product(shapes.gate_up, place.gate_up),
                                 product(shapes.down, place.down)});
    }
    if (range_.last) {
      weights_.final_norm = floats(places.final_norm);
      weights_.head = product(shapes.head, places.head);
    }
  }

  ModelConfig config_;
  StageRange range_;
  GpuStepLimits limits_;
  CudaKvLayout layout_;
  AttentionShape shape_;
  AttentionLimits attention_;
  StepRoom room_;
  GpuStepMaker maker_;
  std::size_t row_bytes_;
  io::DType dtype_;
  std::unique_ptr<LinearFactory> factory_;
  std::vector<float> frequencies_;
  Memory memory_;
  GpuWeights weights_;
  GpuBuffers places_;
  Memory buffers_;
  Memory cache_;
  std::uint32_t blocks_ = 0;
  std::unique_ptr<GpuNetwork<Emulated>> network_;
  GpuSamplers samplers_;
  std::vector<SampleRow> sampling_;
  GraphCache<GpuStep> graphs_{64};
  int replayed_ = 0;
};

inline std::unique_ptr<Stage> make_played_stage(const io::CheckpointReader& checkpoint,
                                                const ModelConfig& config, const StageRange& range,
                                                const StageOptions& options,
                                                const LoadProgress& /*progress*/) {
  return std::make_unique<PlayedStage>(checkpoint, config, range, options);
}

}  // namespace penstock::model
