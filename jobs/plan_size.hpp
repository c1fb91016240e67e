#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/dtype.hpp"
#include "jobs/replay.hpp"
#include "jobs/virtual_machine.hpp"
#include "model/config.hpp"
#include "model/stage_plan.hpp"
#include "model/step_cost.hpp"

// What a pipeline of so many stages takes of its devices' memory. Pure.
namespace penstock::jobs {

// What is known of the job and of where it is to run.
struct PlanInput {
  model::ModelConfig config;
  io::DType dtype = io::DType::bf16;
  io::DType kv_dtype = io::DType::bf16;
  VirtualMachine machine;
  // How long the parts take on a device, as it was measured; null: as the machine's is described.
  std::shared_ptr<const model::PartCost> measured;
  std::uint32_t devices = 0;  // that there are at most; 0: four times as many as are needed
  // Only these; 0: what is best.
  std::uint32_t stages = 0;
  std::uint32_t replicas = 0;
  // As for a run; 0: as a run chooses.
  std::uint32_t slots = 0;
  std::uint32_t max_step_tokens = 0;
  std::uint64_t kv_memory = 0;      // bytes a rank
  std::uint32_t context_limit = 1;  // tokens of prompt and answer together
  std::uint64_t records = 0;
  std::vector<ReplayRecord> lengths;  // of the records, or of an even sample of them; not empty
};

// By which stages are cut, slots are chosen, and time is predicted.
std::shared_ptr<const model::PartCost> part_costs(const PlanInput& input);

// That travel between stages for a token.
double activation_row_bytes(const PlanInput& input);

struct RankMemory {
  model::StageRange layers;
  std::uint64_t weight_bytes = 0;
  std::uint64_t activation_bytes = 0;  // of the largest step, and of what travels
  std::uint64_t kv_bytes = 0;
  std::uint64_t total() const { return weight_bytes + activation_bytes + kv_bytes; }
};

// One pipeline, whatever it is to work on.
struct PipelineSize {
  std::vector<RankMemory> ranks;  // by stage
  std::uint32_t slots = 1;
  std::uint32_t max_step_tokens = 0;
  std::uint32_t max_sequences = 0;  // of one slot
  std::uint32_t kv_blocks = 0;
  std::uint64_t kv_tokens() const;
};

// A size that the devices' memory allows, or why there is none.
struct PipelineFit {
  std::optional<PipelineSize> size;
  std::string reason;
};
// Stages are cut as a run cuts them. The KV cache must hold the longest record alone.
// Throws model::ModelError for more stages than layers. Memory is reckoned as a GPU's, whatever the
// device.
PipelineFit fit_pipeline(const PlanInput& input, std::uint32_t stages);

// The first rank of that replica, of those side by side, which has most edges between nodes.
int first_rank_of_farthest(const VirtualMachine& machine, std::uint32_t stages,
                           std::uint32_t replicas);

}  // namespace penstock::jobs
