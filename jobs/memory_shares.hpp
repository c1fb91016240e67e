#pragma once

#include <cstdint>

#include "comm/topology.hpp"
#include "comm/world.hpp"
#include "io/dtype.hpp"
#include "jobs/devices.hpp"
#include "jobs/pipeline.hpp"
#include "jobs/pipeline_choice.hpp"
#include "model/config.hpp"
#include "model/stage.hpp"

// What a stage may take of the memory that it shares with others.
namespace penstock::jobs {

// Where a rank runs, and with how many others on its node.
struct RankPlace {
  comm::CpuPlacement cpus;
  int node_ranks = 1;
  int threads(const PipelineChoice& choice) const;
};
RankPlace place_of(const comm::World& world, const Layout& layout);

// What a stage may take for weights and activations; 0: all that its device has.
std::uint64_t load_memory(const StageDevice& device, int node_ranks);

// Blocks of the KV cache, unless the user chose: more would not be used by sequences of usual
// length on all slots, and one of any length fits.
std::uint64_t useful_kv_blocks(std::uint32_t slots, std::uint32_t max_sequences,
                               std::uint32_t context_limit);

// What the buffers of the largest step leave of a device's memory, about: for the cut of the
// stages. `buffered_steps`: whose activations in and out have buffers from the start.
std::uint64_t memory_beside_steps(std::uint64_t memory_bytes, const model::ModelConfig& config,
                                  io::DType dtype, std::uint32_t max_step_tokens,
                                  int buffered_steps);

// A stage that is loaded, and what of the pipeline decides about its KV cache.
struct KvRequest {
  const model::Stage& stage;
  const StageDevice& device;
  const PipelineOptions& options;
  std::uint32_t context_limit = 0;
  std::uint64_t kv_memory = 0;  // bytes, as the user says; 0: what there is
  int node_ranks = 1;
};
// KV blocks that the stage has memory for. All must ask before any of them takes it. Throws
// UsageError where that is none, or less than the user says.
std::uint64_t affordable_kv_blocks(const KvRequest& request);

}  // namespace penstock::jobs
