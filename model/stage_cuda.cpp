#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "comm/device/buffer.hpp"
#include "comm/device/error.hpp"
#include "comm/device/gpu.hpp"
#include "comm/device/stream.hpp"
#include "model/decode_graph.hpp"
#include "model/device_activations.hpp"
#include "model/error.hpp"
#include "model/gpu_network.hpp"
#include "model/gpu_samplers.hpp"
#include "model/gpu_sizes.hpp"
#include "model/gpu_step.hpp"
#include "model/load_weights.hpp"
#include "model/ops/rope.hpp"
#include "model/plan_check.hpp"
#include "model/reuse_ring.hpp"
#include "model/stage.hpp"
#include "model/stage_weights_cuda.hpp"
#include "model/step_graph_cuda.hpp"
#include "model/step_lists.hpp"
#include "model/weight_places.hpp"

namespace penstock::model {
namespace {

using comm::device::DeviceBuffer;
using comm::device::Event;
using comm::device::PinnedBuffer;
using comm::device::Stream;

// A run's decode steps come in few sizes at a time; each graph takes a few hundred kilobytes of the
// GPU's memory.
constexpr std::size_t kMostGraphs = 64;

// A step's lists on their way to the GPU, and its ids on their way back.
struct StepRecord {
  PinnedBuffer lists;
  PinnedBuffer ids;
  // Of sequences that it admits. Not pinned: CUDA says that it may stage such memory before the
  // copy's call returns, not that it does.
  std::vector<std::vector<std::byte>> penalties;
  Event done;
  void wait_until_free() const { done.synchronize(); }
};

comm::device::Gpu take_gpu(int index) {
  const comm::device::GpuSurvey survey = comm::device::survey_gpus();
  if (survey.gpus.empty()) throw comm::device::DeviceError(survey.none);
  const auto found = std::ranges::find(survey.gpus, index, &comm::device::Gpu::index);
  if (found == survey.gpus.end()) {
    throw comm::device::DeviceError(
        fmt::format("GPU {} is not one of the {} that can be used", index, survey.gpus.size()));
  }
  comm::device::use_gpu(*found);
  return *found;
}

class CudaStage : public Stage {
 public:
  CudaStage(const io::CheckpointReader& checkpoint, const ModelConfig& config,
            const StageRange& range, const StageOptions& options, const LoadProgress& progress);
  ~CudaStage() override;

  std::size_t activation_row_bytes() const override { return row_bytes_; }
  std::uint64_t weight_bytes() const override { return weights_.memory.size_bytes(); }
  std::uint64_t kv_block_bytes() const override {
    return layout_.block_bytes() * weights_.views.layers.size();
  }
  LoadReport load_report() const override { return load_report_; }
  std::uint64_t kv_memory_bytes() const override {
    const comm::device::GpuMemory memory = comm::device::gpu_memory();
    return gpu_kv_bytes(memory.free_bytes, memory.total_bytes,
                        gpu_activation_bytes(range_, options_, row_bytes_), kv_block_bytes());
  }
  std::unique_ptr<ActivationBuffer> make_activations(std::size_t bytes) const override {
    return std::make_unique<DeviceActivations>(bytes);
  }
  void* compute_stream() const override { return stream_.get(); }
  void allocate_kv(std::uint32_t blocks) override;
  void begin_run() override { samplers_.clear(); }
  void forward(const StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override;
  bool ready() override { return last_ == nullptr || last_->done.done(); }
  std::span<const std::int32_t> sampled() const override {
    return {samples_ == 0 ? nullptr : last_->ids.as<std::int32_t>(), samples_};
  }
  std::span<const float> logits() const override;
  std::string numeric_class() const override;

 private:
  void check_memory(const std::string& path, std::uint64_t weights,
                    const StageShapes& shapes) const;
  void check(const StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out) const;
  void allocate_buffers();
  void run(const StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
           const std::function<void()>& progress);
  void compute(const GpuStep& step, const std::function<void()>& progress);
  void warm_up();

  ModelConfig config_;  // with the context that sequences may have
  StageRange range_;
  StageOptions options_;
  GpuStepLimits limits_;
  comm::device::Gpu gpu_;
  Stream stream_;  // outlives all that is used on it
  Cuda device_;
  std::size_t row_bytes_;
  CudaKvLayout layout_;
  AttentionShape attention_shape_;
  AttentionLimits attention_limits_;
  StepRoom room_;
  std::unique_ptr<CudaLinearFactory> factory_;
  GpuBuffers places_;
  CudaStageWeights weights_;
  LoadReport load_report_;
  DeviceBuffer buffers_;
  DeviceBuffer frequencies_;
  DeviceBuffer cache_;
  std::uint32_t blocks_ = 0;
  std::unique_ptr<GpuNetwork<Cuda>> network_;
  GpuSamplers samplers_;
  GpuStepMaker step_maker_;
  GraphCache<StepGraph> graphs_{kMostGraphs};
  ReuseRing<StepRecord> records_;

  // Of the last step.
  const StepRecord* last_ = nullptr;
  std::size_t samples_ = 0;
  std::vector<SampleRow> sampling_;
  mutable std::vector<float> host_logits_;
};

CudaStage::CudaStage(const io::CheckpointReader& checkpoint, const ModelConfig& config,
                     const StageRange& range, const StageOptions& options,
                     const LoadProgress& progress)
    : config_(config),
      range_(range),
      options_(options),
      limits_(gpu_step_limits(config, options)),
      gpu_(take_gpu(options.gpu)),
      stream_(Stream::create()),
      device_{stream_.get(), options.gpu},
      row_bytes_(static_cast<std::size_t>(config.hidden_size) * io::size_of(options.dtype)),
      layout_{static_cast<std::size_t>(config.num_kv_heads),
              static_cast<std::size_t>(config.head_dim), options.kv_dtype},
      attention_shape_(device_, static_cast<std::size_t>(config.num_heads), options.dtype, layout_),
      attention_limits_(gpu_attention_limits(attention_shape_, limits_)),
      room_(largest_step(limits_, attention_shape_, attention_limits_)),
      factory_(make_linear_factory(device_)),
      step_maker_(limits_, attention_shape_, attention_limits_, range.last) {
  config_.max_position = limits_.context;
  options_.max_samples = limits_.samples;
  const WeightLoader tensors(checkpoint, config, range, options_, progress);
  const WeightPlaces weight_places = place_weights(tensors, config, range, options_);
  const StageShapes shapes = stage_shapes(config, options_);
  places_ = gpu_buffers(config, range, options_, limits_, factory_->padded_rows(room_.rows),
                        factory_->padded_rows(room_.samples), attention_shape_, attention_limits_,
                        StepLayout(room_).bytes);
  check_memory(checkpoint.path(), weight_places.bytes, shapes);

  prepare_products(*factory_, config, range, options_);
  const auto begin = std::chrono::steady_clock::now();
  weights_ =
      load_cuda_weights(checkpoint, weight_places, *factory_, shapes, range, options_, progress);
  load_report_ = {tensors.bytes_total(),
                  std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count()};
  allocate_buffers();
}

CudaStage::~CudaStage() {
  try {
    stream_.synchronize();           // pinned memory is still read and written
  } catch (const std::exception&) {  // then the GPU does nothing any more
  }
}

void CudaStage::check_memory(const std::string& path, std::uint64_t weights,
                             const StageShapes& shapes) const {
  const comm::device::GpuMemory memory = comm::device::gpu_memory();
  const std::uint64_t reserve = gpu_reserve_bytes(memory.total_bytes);
  const std::uint64_t free = memory.free_bytes - std::min(memory.free_bytes, reserve);
  const bool shared = options_.memory_bytes > 0 && options_.memory_bytes < free;
  const std::uint64_t most = shared ? options_.memory_bytes : free;
  // Products are proven before the weights come, each with a weight, rows and results of its own.
  const std::uint64_t needed =
      std::max(weights + places_.bytes, gpu_proof_bytes(shapes, range_.last));
  if (needed <= most) return;
  throw ModelError(fmt::format(
      "{}: layers {} to {} take {} bytes of weights in {} and {} bytes for steps of {} rows and {} "
      "samples, more than the {} bytes that {} on GPU {} ({}); use more stages on more GPUs, or "
      "smaller steps",
      path, range_.begin, range_.end - 1, weights, io::to_string(options_.dtype), places_.bytes,
      limits_.rows, range_.last ? limits_.samples : 0, most,
      shared ? "are this stage's share" : "are free", gpu_.index, gpu_.name));
}

void CudaStage::allocate_buffers() {
  buffers_ = DeviceBuffer(places_.bytes);
  comm::device::zero_async(buffers_.data(), buffers_.size_bytes(), stream_.get());
  const std::vector<float> frequencies = rope_frequencies(config_);
  frequencies_ = DeviceBuffer(frequencies.size() * sizeof(float));
  comm::device::copy_async(frequencies_.data(), frequencies.data(), frequencies_.size_bytes(),
                           stream_.get());
  // One more than there are steps under way, so that the ids of the last step can still be read.
  std::vector<StepRecord> records(std::size_t{options_.slots} + 1);
  for (StepRecord& record : records) {
    record.lists = PinnedBuffer(StepLayout(room_).bytes);
    record.ids = PinnedBuffer(limits_.samples * sizeof(std::int32_t));
    record.done = Event::create();
  }
  records_ = ReuseRing<StepRecord>(std::move(records));
  if (range_.last) {
    std::vector<PenaltyTable*> tables;
    for (std::uint32_t i = 0; i < limits_.sequences_alive; ++i) {
      tables.push_back(reinterpret_cast<PenaltyTable*>(
          buffers_.as<std::byte>() + places_.penalties + i * places_.penalty_table_bytes));
    }
    samplers_ = GpuSamplers(std::move(tables), static_cast<std::size_t>(config_.vocab_size),
                            limits_.penalty_capacity);
  }
  stream_.synchronize();
}

void CudaStage::allocate_kv(std::uint32_t blocks) {
  const GpuCache sizes = gpu_cache(layout_.block_bytes(), weights_.views.layers.size(), blocks);
  cache_ = DeviceBuffer(sizes.bytes);
  blocks_ = blocks;
  // Tiles are read whole: what no token was written to must be a number.
  comm::device::zero_async(cache_.data(), cache_.size_bytes(), stream_.get());
  network_ = std::make_unique<GpuNetwork<Cuda>>(
      GpuNetworkSetting<Cuda>{device_, config_, range_, options_.dtype, layout_, attention_shape_,
                              &weights_.views, buffers_.as<std::byte>(), places_,
                              frequencies_.as<float>(), cache_.as<std::byte>(), sizes.layer_bytes});
  warm_up();
}

// Two steps that touch the scratch block only, so that CUDA has loaded all kernels and made a
// graph, or says why it cannot, before there is any record.
void CudaStage::warm_up() {
  Admission admission;
  admission.tokens = {0};
  admission.prompt_tokens = 1;
  StepPlan prefill;
  prefill.admitted = {admission};
  prefill.tokens.resize(std::min(limits_.rows, limits_.context));
  StepPlan decode;
  decode.tokens.resize(1);
  for (auto& [plan, position] :
       {std::pair<StepPlan&, std::uint32_t>(prefill, 0),
        {decode, std::min(limits_.context - 1, 2 * kAttentionSplitTokens)}}) {
    SequenceStep sequence;
    sequence.rows = plan.rows();
    sequence.position = position;
    sequence.blocks = (position + sequence.rows + kKvBlockTokens - 1) / kKvBlockTokens;
    sequence.sample = true;
    plan.sequences = {sequence};
    plan.block_table.assign(sequence.blocks, blocks_);
  }
  samplers_.clear();
  for (const StepPlan* plan : {&prefill, &decode, &decode}) {
    // Any memory that has room: nobody reads what comes out.
    const std::size_t bytes = plan->rows() * row_bytes_;
    std::byte* const buffers = buffers_.as<std::byte>();
    run(*plan, {buffers + places_.normed, range_.first ? 0 : bytes},
        {buffers + places_.normed, range_.last ? 0 : bytes}, [] {});
  }
  stream_.synchronize();
  samplers_.clear();
  samples_ = 0;
}

void CudaStage::check(const StepPlan& plan, std::span<const std::byte> in,
                      std::span<std::byte> out) const {
  check_plan(plan, config_, {limits_.rows, limits_.samples, blocks_});
  if (plan.sequences.size() > limits_.samples || plan.block_table.size() > room_.table) {
    throw ModelError(fmt::format(
        "step {}: {} sequences with {} KV blocks in one step, there is room for {} with {}",
        plan.step, plan.sequences.size(), plan.block_table.size(), limits_.samples, room_.table));
  }
  const std::size_t bytes = plan.tokens.size() * row_bytes_;
  if (in.size() != (range_.first ? 0 : bytes) || out.size() != (range_.last ? 0 : bytes)) {
    throw ModelError(fmt::format(
        "step {}: activations of {} bytes in and {} bytes out do not fit {} rows of {} bytes",
        plan.step, in.size(), out.size(), plan.tokens.size(), row_bytes_));
  }
}

void CudaStage::forward(const StepPlan& plan, std::span<const std::byte> in,
                        std::span<std::byte> out, const std::function<void()>& progress) {
  check(plan, in, out);
  run(plan, in, out, progress);
}

void CudaStage::run(const StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
                    const std::function<void()>& progress) {
  samples_ = 0;
  sampling_.clear();
  StepRecord& record = records_.next();
  record.penalties.clear();
  if (range_.last) {
    samplers_.update(plan, [&](PenaltyTable* to, std::vector<std::byte> table) {
      comm::device::copy_async(to, table.data(), table.size(), stream_.get());
      record.penalties.push_back(std::move(table));
    });
    samplers_.rows(plan, sampling_);
  }
  if (plan.rows() == 0) return record.done.record(stream_);

  const GpuStep step = step_maker_.make(plan, sampling_, blocks_, record.lists.bytes());
  std::byte* const buffers = buffers_.as<std::byte>();
  comm::device::copy_async(buffers + places_.lists, record.lists.data(), step.layout.bytes,
                           stream_.get());
  // What a graph computes for rows that are not there is never looked at.
  if (!range_.first) {
    comm::device::copy_async(buffers + places_.x, in.data(), in.size(), stream_.get());
  }
  compute(step, progress);
  if (!range_.last) network_->add_last(plan.rows(), out.data());
  comm::device::copy_async(record.ids.data(), buffers + places_.ids,
                           sampling_.size() * sizeof(std::int32_t), stream_.get());
  record.done.record(stream_);
  last_ = &record;
  samples_ = sampling_.size();
}

// A step whose key is new is computed plainly, which also loads what its kernels need, and its
// graph is made for the next of its kind.
void CudaStage::compute(const GpuStep& step, const std::function<void()>& progress) {
  if (step.key) {
    if (const StepGraph* graph = graphs_.find(*step.key)) {
      graph->launch(stream_);
      return;
    }
  }
  network_->compute(step, progress);
  if (step.key) {
    graphs_.insert(*step.key, StepGraph::capture(stream_, [&] { network_->compute(step, [] {}); }));
  }
}

std::span<const float> CudaStage::logits() const {
  host_logits_.resize(samples_ * static_cast<std::size_t>(config_.vocab_size));
  comm::device::copy_async(host_logits_.data(), buffers_.as<std::byte>() + places_.logits,
                           host_logits_.size() * sizeof(float), stream_.get());
  stream_.synchronize();
  return host_logits_;
}

// The number of multiprocessors is part of what cuBLASLt chooses its algorithms by. For GPUs that
// are newer than the program the driver compiles the kernels.
std::string CudaStage::numeric_class() const {
  const comm::device::GpuSurvey survey = comm::device::survey_gpus();
  constexpr int kNewestBuilt = 9;  // CMAKE_CUDA_ARCHITECTURES
  return fmt::format("cuda {} {}-multiprocessors cuda-{}{}", factory_->numeric_class(),
                     gpu_.multiprocessors, comm::device::cuda_version_text(survey.runtime_version),
                     gpu_.major > kNewestBuilt
                         ? " driver-" + comm::device::cuda_version_text(survey.driver_version)
                         : "");
}

}  // namespace

std::unique_ptr<Stage> make_cuda_stage(const io::CheckpointReader& checkpoint,
                                       const ModelConfig& config, const StageRange& range,
                                       const StageOptions& options, const LoadProgress& progress) {
  validate(config);
  check_stage_range(config, range);
  return std::make_unique<CudaStage>(checkpoint, config, range, options, progress);
}

}  // namespace penstock::model
