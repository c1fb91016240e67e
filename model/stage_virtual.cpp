#include <fmt/format.h>

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/device_model.hpp"
#include "model/error.hpp"
#include "model/gpu_sizes.hpp"
#include "model/host_bytes.hpp"
#include "model/plan_check.hpp"
#include "model/stage.hpp"
#include "model/stage_memory.hpp"

namespace penstock::model {
namespace {

// The finalizer of SplitMix64.
std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31U);
}

// Takes no time and computes nothing; what a real stage would notice in a plan, it does as well.
class VirtualStage : public Stage {
 public:
  VirtualStage(const ModelConfig& config, const StageRange& range, const StageOptions& options,
               const DeviceModel& device)
      : config_(config),
        range_(range),
        options_(options),
        device_(device),
        memory_(stage_memory(config, range, options)),
        cost_(cost_by_device(config, options.dtype, options.kv_dtype, device), range) {
    const GpuStepLimits limits = gpu_step_limits(config, options);
    config_.max_position = limits.context;
    options_.max_samples = limits.samples;
    check_memory();
  }

  std::size_t activation_row_bytes() const override {
    return static_cast<std::size_t>(config_.hidden_size) * io::size_of(options_.dtype);
  }
  // Only the time at which they arrive.
  std::size_t activation_bytes(std::uint32_t rows) const override {
    return rows > 0 ? sizeof(std::int64_t) : 0;
  }
  std::uint64_t weight_bytes() const override { return memory_.weight_bytes; }
  std::uint64_t kv_block_bytes() const override { return memory_.kv_block_bytes; }
  LoadReport load_report() const override { return {}; }
  std::uint64_t kv_memory_bytes() const override { return memory_.kv_bytes(device_.memory_bytes); }
  std::unique_ptr<ActivationBuffer> make_activations(std::size_t bytes) const override {
    return std::make_unique<HostBytes>(std::max<std::size_t>(bytes, 1));
  }
  void allocate_kv(std::uint32_t blocks) override { kv_blocks_ = blocks; }
  void begin_run() override {
    records_.clear();
    modelled_seconds_.reset();
  }
  void forward(const StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override;
  bool ready() override { return true; }
  std::optional<double> modelled_seconds() const override { return modelled_seconds_; }
  std::span<const std::int32_t> sampled() const override { return sampled_; }
  std::span<const float> logits() const override { return {}; }
  std::string numeric_class() const override { return "virtual " + device_.name; }

 private:
  void check_memory() const;
  void sample(const StepPlan& plan);
  std::int32_t token(std::uint64_t record, std::uint64_t position) const;

  ModelConfig config_;  // with the context that sequences may have
  StageRange range_;
  StageOptions options_;
  DeviceModel device_;
  StageMemory memory_;
  StepCost cost_;
  std::uint32_t kv_blocks_ = 0;
  std::unordered_map<std::uint32_t, std::uint64_t> records_;  // by handle; of the last stage
  std::vector<std::int32_t> sampled_;
  std::optional<double> modelled_seconds_;
};

void VirtualStage::check_memory() const {
  const std::uint64_t reserve = gpu_reserve_bytes(device_.memory_bytes);
  const std::uint64_t most = device_.memory_bytes - std::min(device_.memory_bytes, reserve);
  if (memory_.weight_bytes <= most && memory_.step_bytes <= most - memory_.weight_bytes) return;
  throw ModelError(fmt::format(
      "layers {} to {} take {} bytes of weights in {} and {} bytes for steps of {} rows and {} "
      "samples, more than the {} bytes that a virtual {} has for them; use more stages, or smaller "
      "steps",
      range_.begin, range_.end - 1, memory_.weight_bytes, io::to_string(options_.dtype),
      memory_.step_bytes, options_.max_rows, range_.last ? options_.max_samples : 0, most,
      device_.name));
}

void VirtualStage::forward(const StepPlan& plan, std::span<const std::byte> in,
                           std::span<std::byte> out, const std::function<void()>& /*progress*/) {
  check_plan(plan, config_, {options_.max_rows, options_.max_samples, kv_blocks_});
  const std::size_t bytes = activation_bytes(plan.rows());
  if (in.size() != (range_.first ? 0 : bytes) || out.size() != (range_.last ? 0 : bytes)) {
    throw ModelError(fmt::format(
        "step {}: activations of {} bytes in and {} bytes out are none of a virtual device",
        plan.step, in.size(), out.size()));
  }
  if (range_.last) sample(plan);
  modelled_seconds_ = plan.rows() == 0 ? 0 : cost_.seconds(shape_of(plan));
}

void VirtualStage::sample(const StepPlan& plan) {
  for (const std::uint32_t handle : plan.retired) records_.erase(handle);
  for (const Admission& admission : plan.admitted) {
    records_.insert_or_assign(admission.sequence, admission.record);
  }
  sampled_.clear();
  for (const SequenceStep& sequence : plan.sequences) {
    if (!sequence.sample) continue;
    const auto record = records_.find(sequence.sequence);
    if (record == records_.end()) {
      throw ModelError(
          fmt::format("step {}: sequence {} was never admitted", plan.step, sequence.sequence));
    }
    sampled_.push_back(token(record->second, std::uint64_t{sequence.position} + sequence.rows));
  }
}

// The same whatever the layout. Never one that ends an answer, so that answers are as long as they
// may be.
std::int32_t VirtualStage::token(std::uint64_t record, std::uint64_t position) const {
  const auto vocab = static_cast<std::uint64_t>(config_.vocab_size);
  std::uint64_t id = mixed(mixed(record + 0x9e3779b97f4a7c15U) + position) % vocab;
  const auto& ends = config_.eos_token_ids;
  for (std::size_t tries = 0; tries < ends.size(); ++tries) {
    if (std::find(ends.begin(), ends.end(), static_cast<std::int32_t>(id)) == ends.end()) break;
    id = (id + 1) % vocab;
  }
  return static_cast<std::int32_t>(id);
}

}  // namespace

std::unique_ptr<Stage> make_virtual_stage(const ModelConfig& config, const StageRange& range,
                                          const StageOptions& options, const DeviceModel& device) {
  check_stage_range(config, range);
  return std::make_unique<VirtualStage>(config, range, options, device);
}

}  // namespace penstock::model
