#include "jobs/plan_size.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "jobs/pipeline.hpp"
#include "jobs/replay_sample.hpp"
#include "jobs/report.hpp"
#include "jobs/slots.hpp"
#include "jobs/stage_setup.hpp"
#include "model/device_model.hpp"
#include "model/error.hpp"
#include "model/gpu_sizes.hpp"
#include "model/stage_memory.hpp"

namespace penstock::jobs {
namespace {

std::uint64_t blocks_for(std::uint64_t tokens) {
  return (tokens + model::kKvBlockTokens - 1) / model::kKvBlockTokens;
}

std::uint64_t longest_record(const std::vector<ReplayRecord>& lengths) {
  std::uint64_t longest = 0;
  for (const ReplayRecord& record : lengths) {
    longest = std::max(longest, std::uint64_t{record.prompt_tokens} + record.answer_tokens);
  }
  return longest;
}

// What steps leave of a device's memory.
std::uint64_t memory_left(const PlanInput& input, std::uint32_t stages,
                          std::uint32_t max_step_tokens) {
  const std::uint64_t all = input.machine.device.memory_bytes;
  return memory_beside_steps(all - std::min(all, model::gpu_reserve_bytes(all)), input.config,
                             input.dtype, max_step_tokens,
                             static_cast<int>(input.slots > 0 ? input.slots : most_slots(stages)));
}

// As a run has them cut for such devices and records, which leave `memory` for weights.
std::vector<model::StageRange> cut(const PlanInput& input, std::uint32_t stages,
                                   const model::PartCost& parts, std::uint64_t memory) {
  constexpr std::uint64_t kSequences = 64;  // of a slot
  const MeanLengths mean = mean_lengths(input.lengths);
  const model::StepShape step = model::steady_step(kSequences, mean.prompt, mean.answer);
  const model::StageRank rank{model::part_seconds(parts, step), memory};
  const std::vector<model::StageRank> ranks(stages, rank);
  const auto with_kv = [&](std::uint64_t tokens) {
    return model::cut_stages(input.config.num_layers, ranks,
                             model::part_bytes(input.config, input.dtype, input.kv_dtype, tokens));
  };
  try {
    return with_kv(input.kv_memory > 0 ? 0 : input.context_limit);
  } catch (const model::ModelError&) {
    return with_kv(input.kv_memory > 0 ? 0 : model::kKvBlockTokens);
  }
}

}  // namespace

std::shared_ptr<const model::PartCost> part_costs(const PlanInput& input) {
  if (input.measured) return input.measured;
  return model::cost_by_device(input.config, input.dtype, input.kv_dtype, input.machine.device);
}

double activation_row_bytes(const PlanInput& input) {
  return static_cast<double>(input.config.hidden_size) *
         static_cast<double>(io::size_of(input.dtype));
}

std::uint64_t PipelineSize::kv_tokens() const {
  return std::uint64_t{kv_blocks} * model::kKvBlockTokens;
}

PipelineFit fit_pipeline(const PlanInput& input, std::uint32_t stages) {
  const std::uint64_t device_bytes = input.machine.device.memory_bytes;
  PipelineSize size;
  size.max_step_tokens = input.max_step_tokens > 0 ? input.max_step_tokens
                         : input.machine.gpus      ? kGpuStepTokens
                                                   : kCpuStepTokens;
  size.max_sequences = std::min(PipelineOptions{}.max_sequences, size.max_step_tokens);
  const std::shared_ptr<const model::PartCost> parts = part_costs(input);
  const std::uint64_t left = memory_left(input, stages, size.max_step_tokens);
  if (input.kv_memory > left) {
    return {std::nullopt,
            fmt::format("--kv-memory {} is more than the {} that a device has beside steps: give "
                        "less",
                        format_bytes(input.kv_memory), format_bytes(left))};
  }
  std::vector<model::StageRange> ranges;
  try {
    ranges = cut(input, stages, *parts, left - input.kv_memory);
  } catch (const model::ModelError& error) {
    return {std::nullopt,
            fmt::format("with {} stage{}: {}{}", stages, stages == 1 ? "" : "s", error.what(),
                        input.kv_memory == 0 ? ""
                                             : fmt::format(", beside --kv-memory {}",
                                                           format_bytes(input.kv_memory)))};
  }
  if (input.slots > 0) {
    size.slots = input.slots;
  } else {
    size.slots = slots_for(input.machine, *parts, ranges, 0, activation_row_bytes(input),
                           size.max_sequences);
  }

  model::StageOptions options;
  options.dtype = input.dtype;
  options.kv_dtype = input.kv_dtype;
  options.max_rows = size.max_step_tokens;
  options.max_samples = size.max_sequences;
  options.slots = size.slots;
  options.max_context = input.context_limit;

  const std::uint64_t longest = longest_record(input.lengths);
  std::uint64_t blocks = useful_kv_blocks(size.slots, size.max_sequences, input.context_limit);
  std::vector<std::uint64_t> block_bytes;
  for (const model::StageRange& range : ranges) {
    const model::StageMemory memory = model::stage_memory(input.config, range, options);
    RankMemory& rank = size.ranks.emplace_back();
    rank.layers = range;
    rank.weight_bytes = memory.weight_bytes;
    rank.activation_bytes = memory.step_bytes + memory.activation_bytes;
    const std::uint64_t most = memory.kv_bytes(device_bytes);
    if (most < blocks_for(longest) * memory.kv_block_bytes) {
      return {std::nullopt,
              fmt::format("with {} stage{} layers {} to {} take {} of weights and {} for steps of "
                          "the {} of a device, {}",
                          stages, stages == 1 ? "" : "s", range.begin, range.end - 1,
                          format_bytes(rank.weight_bytes), format_bytes(rank.activation_bytes),
                          format_bytes(device_bytes),
                          most == 0 ? std::string("which is more than it has for them")
                                    : fmt::format("which leaves no KV cache for a record of {} "
                                                  "tokens",
                                                  format_grouped(longest)))};
    }
    if (input.kv_memory > most) {
      return {std::nullopt,
              fmt::format("with {} stage{} --kv-memory {} is more than the {} that a device has "
                          "beside weights and steps: give less",
                          stages, stages == 1 ? "" : "s", format_bytes(input.kv_memory),
                          format_bytes(most))};
    }
    const std::uint64_t wanted = input.kv_memory > 0 ? input.kv_memory : most;
    blocks = std::min(blocks, wanted / memory.kv_block_bytes);
    block_bytes.push_back(memory.kv_block_bytes);
  }
  if (blocks < blocks_for(longest)) {
    return {std::nullopt, fmt::format("--kv-memory {} holds no record of {} tokens",
                                      format_bytes(input.kv_memory), format_grouped(longest))};
  }
  size.kv_blocks = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(blocks, std::numeric_limits<std::uint32_t>::max()));
  for (std::size_t i = 0; i < size.ranks.size(); ++i) {
    size.ranks[i].kv_bytes = size.kv_blocks * block_bytes[i];
  }
  return {std::move(size), ""};
}

int first_rank_of_farthest(const VirtualMachine& machine, std::uint32_t stages,
                           std::uint32_t replicas) {
  const auto length = static_cast<int>(stages);
  const auto edges_between_nodes = [&](int first) {
    return (first + length - 1) / machine.devices_per_node - first / machine.devices_per_node;
  };
  int farthest = 0;
  for (int replica = 1; replica < static_cast<int>(replicas); ++replica) {
    const int first = replica * length;
    if (edges_between_nodes(first) > edges_between_nodes(farthest)) farthest = first;
  }
  return farthest;
}

}  // namespace penstock::jobs
