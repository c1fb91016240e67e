#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "model/error.hpp"
#include "model/host_memory.hpp"
#include "model/kv_cache.hpp"
#include "model/ops/add.hpp"
#include "model/ops/attention.hpp"
#include "model/ops/embedding.hpp"
#include "model/ops/instruction_set.hpp"
#include "model/ops/kv_write.hpp"
#include "model/ops/rms_norm.hpp"
#include "model/ops/rope.hpp"
#include "model/ops/swiglu.hpp"
#include "model/plan_check.hpp"
#include "model/stage.hpp"
#include "model/stage_samplers.hpp"
#include "model/stage_weights.hpp"

namespace penstock::model {
namespace {

StageOptions checked(StageOptions options) {
  const auto computes = [](io::DType dtype) {
    return dtype == io::DType::f32 || dtype == io::DType::bf16;
  };
  if (!computes(options.dtype) || !computes(options.kv_dtype)) {
    throw ModelError("the CPU computes in f32 or bf16, not in f16");
  }
  if (options.threads < 1 || options.max_rows < 1) {
    throw ModelError("a stage needs at least one thread and one row");
  }
  options.max_samples = std::max(1u, std::min(options.max_samples, options.max_rows));
  return options;
}

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

class HostActivations : public ActivationBuffer {
 public:
  explicit HostActivations(std::size_t bytes)
      : data_(static_cast<std::byte*>(::operator new(bytes, kAlignment))), bytes_(bytes) {}
  std::span<std::byte> bytes() const override { return {data_.get(), bytes_}; }

 private:
  static constexpr std::align_val_t kAlignment{256};
  struct Free {
    void operator()(std::byte* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t bytes_;
};

class CpuStage : public Stage {
 public:
  CpuStage(const io::CheckpointReader& checkpoint, const ModelConfig& config,
           const StageRange& range, const StageOptions& options, const LoadProgress& progress);

  std::size_t activation_row_bytes() const override { return hidden_ * element_; }
  std::uint64_t weight_bytes() const override { return weights_.resident_bytes; }
  std::uint64_t kv_block_bytes() const override {
    return layout_.block_bytes() * weights_.layers.size();
  }
  LoadReport load_report() const override { return load_report_; }
  std::uint64_t kv_memory_bytes() const override { return available_memory_bytes(); }
  std::unique_ptr<ActivationBuffer> make_activations(std::size_t bytes) const override {
    return std::make_unique<HostActivations>(bytes);
  }
  void allocate_kv(std::uint32_t blocks) override;
  void begin_run() override { samplers_.clear(); }
  void forward(const StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override;
  bool ready() override { return true; }
  std::span<const std::int32_t> sampled() const override { return sampled_; }
  std::span<const float> logits() const override {
    return {logits_.as<float>(), sampled_.size() * size(config_.vocab_size)};
  }
  std::string numeric_class() const override { return cpu_numeric_class(); }

 private:
  // A buffer of the step at hand and its size.
  struct Room {
    HostBuffer* buffer;
    std::uint64_t rows;
    std::uint64_t row_bytes;
    std::uint64_t bytes() const { return rows * row_bytes; }
  };
  std::vector<Room> rooms();
  void check_memory(const std::string& path, const WeightLoader& loader,
                    const std::vector<Room>& rooms) const;
  void check_spans(const StepPlan& plan, std::span<const std::byte> in,
                   std::span<std::byte> out) const;
  void prepare_rows(const StepPlan& plan);
  void attend(const LayerWeights& layer, std::byte* cache, std::size_t rows, const void* delta);
  void norm(std::size_t rows, const std::vector<float>& weight, HostBuffer& x, const void* delta,
            HostBuffer& to) const;
  void sample(const StepPlan& plan);

  ModelConfig config_;
  StageRange range_;
  StageOptions options_;
  Cpu device_;
  std::size_t hidden_;
  std::size_t element_;  // bytes of an activation
  std::size_t qkv_width_;
  KvLayout layout_;
  std::vector<float> frequencies_;
  std::unique_ptr<LinearFactory> factory_;
  StageWeights weights_;
  LoadReport load_report_;
  KvCache cache_;
  AttentionScratch attention_scratch_;
  StageSamplers samplers_;

  // Of the step at hand, a row for each token unless it says otherwise.
  HostBuffer x_;          // [hidden]: the residual stream
  HostBuffer normed_;     // [hidden]
  HostBuffer qkv_;        // [qkv_width]
  HostBuffer attended_;   // [heads * head_dim]
  HostBuffer delta_;      // [hidden]: what attention or MLP adds to x
  HostBuffer gate_up_;    // [2 * intermediate]
  HostBuffer activated_;  // [intermediate]
  HostBuffer rope_table_;
  HostBuffer sample_x_;      // [samples, hidden]
  HostBuffer sample_delta_;  // [samples, hidden]
  HostBuffer sample_in_;     // [samples, hidden]
  HostBuffer logits_;        // [samples, vocab]
  std::vector<std::uint32_t> positions_;
  std::vector<std::uint32_t> row_blocks_;
  std::vector<AttentionSequence> sequences_;
  std::vector<std::int32_t> sample_rows_;  // [samples]
  std::vector<std::int32_t> sampled_;      // [samples]
};

CpuStage::CpuStage(const io::CheckpointReader& checkpoint, const ModelConfig& config,
                   const StageRange& range, const StageOptions& options,
                   const LoadProgress& progress)
    : config_(config),
      range_(range),
      options_(checked(options)),
      device_{options.threads},
      hidden_(size(config.hidden_size)),
      element_(io::size_of(options.dtype)),
      qkv_width_(size((config.num_heads + 2 * config.num_kv_heads) * config.head_dim)),
      layout_{size(config.num_kv_heads), size(config.head_dim), options.kv_dtype},
      frequencies_(rope_frequencies(config)),
      factory_(make_linear_factory(device_)),
      attention_scratch_(device_, size(config.num_heads), layout_),
      samplers_(0, 1) {
  WeightLoader loader(checkpoint, config, range, options_, progress);
  const std::vector<Room> rooms = this->rooms();
  check_memory(checkpoint.path(), loader, rooms);
  prepare_products(*factory_, config, range, options_);
  const auto begin = std::chrono::steady_clock::now();
  weights_ = load_stage_weights(loader, *factory_, config, range, options_);
  load_report_ = {loader.bytes_done(),
                  std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count()};

  for (const Room& room : rooms) {
    *room.buffer = HostBuffer(room.bytes(), device_.threads, "activations");
  }
  positions_.reserve(options_.max_rows);
  row_blocks_.reserve(options_.max_rows);
  sequences_.reserve(options_.max_rows);
  if (range.last) samplers_ = StageSamplers(size(config.vocab_size), options.threads);
}

std::vector<CpuStage::Room> CpuStage::rooms() {
  const std::size_t rows = factory_->padded_rows(options_.max_rows);
  const std::size_t inner = size(config_.intermediate_size);
  std::vector<Room> rooms{{&x_, rows, hidden_ * element_},
                          {&normed_, rows, hidden_ * element_},
                          {&qkv_, rows, qkv_width_ * element_},
                          {&attended_, rows, size(config_.num_heads) * layout_.head_dim * element_},
                          {&delta_, rows, hidden_ * element_},
                          {&gate_up_, rows, 2 * inner * element_},
                          {&activated_, rows, inner * element_},
                          {&rope_table_, rows, layout_.head_dim * sizeof(float)}};
  if (range_.last) {
    const std::size_t samples = factory_->padded_rows(options_.max_samples);
    for (HostBuffer* buffer : {&sample_x_, &sample_delta_, &sample_in_}) {
      rooms.push_back({buffer, samples, hidden_ * element_});
    }
    rooms.push_back({&logits_, samples, size(config_.vocab_size) * sizeof(float)});
  }
  return rooms;
}

void CpuStage::check_memory(const std::string& path, const WeightLoader& loader,
                            const std::vector<Room>& rooms) const {
  std::uint64_t activations = 0, logits = 0;
  for (const Room& room : rooms) {
    (room.buffer == &logits_ ? logits : activations) += room.bytes();
  }
  if (range_.last) {
    logits += SamplerScratch::bytes(size(config_.vocab_size)) * size(device_.threads);
  }
  // A product's weight is there twice while it is packed, or as it is stored while it is converted;
  // activations come later.
  const std::uint64_t weights = loader.resident_bytes();
  const std::uint64_t packing =
      std::max(loader.largest_converted_bytes(), largest_plain_bytes(config_, range_, options_));
  const bool shared = options_.memory_bytes > 0;
  const std::uint64_t memory = shared ? options_.memory_bytes : available_memory_bytes();
  if (weights + std::max(packing, activations + logits) <= memory) return;
  throw ModelError(fmt::format(
      "{}: layers {} to {} take {} bytes of weights in {} and then {} bytes of activations for {} "
      "rows and {} bytes of logits for {} samples, or {} bytes while weights are packed: more "
      "together than the {} bytes of memory that {}; use more stages on more nodes, or smaller "
      "steps",
      path, range_.begin, range_.end - 1, weights, io::to_string(options_.dtype), activations,
      options_.max_rows, logits, range_.last ? options_.max_samples : 0, packing, memory,
      shared ? "are this stage's share" : "are available"));
}

void CpuStage::allocate_kv(std::uint32_t blocks) {
  cache_ = KvCache(layout_, weights_.layers.size(), blocks);
}

void CpuStage::check_spans(const StepPlan& plan, std::span<const std::byte> in,
                           std::span<std::byte> out) const {
  const std::size_t bytes = plan.tokens.size() * activation_row_bytes();
  if (in.size() != (range_.first ? 0 : bytes) || out.size() != (range_.last ? 0 : bytes)) {
    throw ModelError(fmt::format(
        "step {}: activations of {} bytes in and {} bytes out do not fit {} rows of {} bytes",
        plan.step, in.size(), out.size(), plan.tokens.size(), activation_row_bytes()));
  }
}

void CpuStage::prepare_rows(const StepPlan& plan) {
  positions_.clear();
  row_blocks_.clear();
  sequences_.clear();
  sample_rows_.clear();
  for (const SequenceStep& sequence : plan.sequences) {
    const std::uint32_t* blocks = plan.block_table.data() + sequence.first_block;
    sequences_.push_back({sequence.first_row, sequence.rows, sequence.position, blocks});
    for (std::uint32_t i = 0; i < sequence.rows; ++i) {
      positions_.push_back(sequence.position + i);
      row_blocks_.push_back(blocks[positions_.back() / kKvBlockTokens]);
    }
    if (sequence.sample) {
      sample_rows_.push_back(static_cast<std::int32_t>(sequence.first_row + sequence.rows - 1));
    }
  }
  rope_table(device_, positions_, frequencies_, rope_table_.as<float>());
}

void CpuStage::norm(std::size_t rows, const std::vector<float>& weight, HostBuffer& x,
                    const void* delta, HostBuffer& to) const {
  RmsNorm args;
  args.rows = rows;
  args.width = hidden_;
  args.dtype = options_.dtype;
  args.x = x.data();
  args.delta = delta;
  args.weight = weight.data();
  args.eps = static_cast<float>(config_.rms_norm_eps);
  args.out = to.data();
  rms_norm(device_, args);
}

void CpuStage::attend(const LayerWeights& layer, std::byte* cache, std::size_t rows,
                      const void* delta) {
  norm(rows, layer.attn_norm, x_, delta, normed_);
  layer.qkv->apply(rows, normed_.data(), qkv_.data());

  const std::size_t heads = size(config_.num_heads);
  Rope rotation;
  rotation.rows = rows;
  rotation.heads = heads + layout_.kv_heads;  // keys lie behind the queries
  rotation.head_dim = layout_.head_dim;
  rotation.row_stride = qkv_width_;
  rotation.dtype = options_.dtype;
  rotation.table = rope_table_.as<float>();
  rotation.x = qkv_.data();
  rope(device_, rotation);

  KvWrite write;
  write.rows = rows;
  write.dtype = options_.dtype;
  write.row_stride = qkv_width_;
  write.k = qkv_.data() + heads * layout_.head_dim * element_;
  write.v = qkv_.data() + (heads + layout_.kv_heads) * layout_.head_dim * element_;
  write.blocks = row_blocks_.data();
  write.positions = positions_.data();
  write.layout = layout_;
  write.cache = cache;
  kv_write(device_, write);

  Attention args;
  args.sequences = sequences_;
  args.heads = heads;
  args.dtype = options_.dtype;
  args.q_stride = qkv_width_;
  args.q = qkv_.data();
  args.layout = layout_;
  args.cache = cache;
  args.out = attended_.data();
  attention(device_, args, attention_scratch_);
}

void CpuStage::sample(const StepPlan& plan) {
  const std::size_t samples = sample_rows_.size();
  const std::size_t row_bytes = activation_row_bytes();
  gather_rows(device_, x_.data(), row_bytes, sample_rows_, sample_x_.data());
  gather_rows(device_, delta_.data(), row_bytes, sample_rows_, sample_delta_.data());
  norm(samples, weights_.final_norm, sample_x_, sample_delta_.data(), sample_in_);
  weights_.head->apply(samples, sample_in_.data(), logits_.data());
  const std::span<const float> rows{logits_.as<float>(), samples * size(config_.vocab_size)};
  samplers_.sample(plan, rows, sampled_);
}

void CpuStage::forward(const StepPlan& plan, std::span<const std::byte> in,
                       std::span<std::byte> out, const std::function<void()>& progress) {
  check_plan(plan, config_, {options_.max_rows, options_.max_samples, cache_.blocks()});
  check_spans(plan, in, out);
  sampled_.clear();
  if (range_.last) samplers_.update(plan);
  const std::size_t rows = plan.tokens.size();
  if (rows == 0) return;

  prepare_rows(plan);
  if (range_.first) {
    gather_rows(device_, weights_.embedding.data(), activation_row_bytes(), plan.tokens, x_.data());
  } else {
    std::memcpy(x_.data(), in.data(), in.size());
  }
  const void* delta = nullptr;  // what the layer before has still to add to x
  for (std::size_t i = 0; i < weights_.layers.size(); ++i) {
    const LayerWeights& layer = weights_.layers[i];
    attend(layer, cache_.layer(i), rows, delta);
    progress();
    layer.o->apply(rows, attended_.data(), delta_.data());
    delta = delta_.data();
    norm(rows, layer.mlp_norm, x_, delta, normed_);
    layer.gate_up->apply(rows, normed_.data(), gate_up_.data());
    progress();
    swiglu(device_, options_.dtype, rows, size(config_.intermediate_size), gate_up_.data(),
           activated_.data());
    layer.down->apply(rows, activated_.data(), delta_.data());
    progress();
  }
  if (!range_.last) {
    add(device_, options_.dtype, x_.data(), delta_.data(), rows * hidden_, out.data());
  } else if (!sample_rows_.empty()) {
    sample(plan);
  }
}

}  // namespace

std::string cpu_numeric_class() {
  return fmt::format("cpu {} kernels-{}", make_linear_factory(Cpu{1})->numeric_class(),
                     kernel_numeric_class());
}

std::unique_ptr<Stage> make_cpu_stage(const io::CheckpointReader& checkpoint,
                                      const ModelConfig& config, const StageRange& range,
                                      const StageOptions& options, const LoadProgress& progress) {
  check_stage_range(config, range);
  return std::make_unique<CpuStage>(checkpoint, config, range, options, progress);
}

}  // namespace penstock::model
