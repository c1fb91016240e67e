#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/link.hpp"
#include "comm/topology.hpp"
#include "io/checkpoint.hpp"
#include "jobs/agreement.hpp"
#include "jobs/devices.hpp"
#include "jobs/launch.hpp"
#include "jobs/pipeline.hpp"
#include "jobs/report.hpp"
#include "jobs/stage_cut.hpp"
#include "jobs/virtual_machine.hpp"
#include "model/config.hpp"
#include "model/stage.hpp"

namespace penstock::jobs {

// The options that all commands with a pipeline share. Zero and empty: chosen by the program.
struct PipelineChoice {
  std::string checkpoint;
  std::string stage_dir;  // each node's folder for copies of the stages' parts; empty: no copies
  LinkKind link = LinkKind::automatic;
  DeviceKind device = DeviceKind::automatic;
  std::optional<VirtualMachine> machine;  // with DeviceKind::virtual_device
  bool realtime = false;                  // such a rehearsal takes the time that it is about
  int stages = 0;
  int replicas = 0;
  int threads = 0;
  std::optional<io::DType> dtype;
  std::optional<io::DType> kv_dtype;
  std::uint32_t slots = 0;
  std::uint32_t max_step_tokens = 0;
  std::uint32_t max_context = 0;
  std::uint64_t kv_memory = 0;       // bytes a rank
  std::vector<std::int64_t> layers;  // of each stage
  // What the stages are cut for; stage 0's counts. Prompts as long as answers, unless known better.
  model::StepShape step = model::steady_step(64, 256, 256);
  std::chrono::seconds watchdog = comm::kDefaultWatchdog;  // for run_stages()
};

// Throws UsageError for options of which one makes no sense with another.
void check_choice(const PipelineChoice& choice);

// Tokens of a prompt and its answer together.
std::uint32_t context_limit(const model::ModelConfig& config, const PipelineChoice& choice);

// Tokens of a step, unless the user chose. A GPU's arithmetic is idle in small steps, which read
// all weights as well.
inline constexpr std::uint32_t kCpuStepTokens = 512;
inline constexpr std::uint32_t kGpuStepTokens = 2048;

// Blocks of the KV cache, unless the user chose: more would not be used by sequences of usual
// length on all slots, and one of any length fits.
std::uint64_t useful_kv_blocks(std::uint32_t slots, std::uint32_t max_sequences,
                               std::uint32_t context_limit);

// What the buffers of the largest step leave of a device's memory, about: for the cut of the
// stages. `buffered_steps`: whose activations in and out have buffers from the start.
std::uint64_t memory_beside_steps(std::uint64_t memory_bytes, const model::ModelConfig& config,
                                  io::DType dtype, std::uint32_t max_step_tokens,
                                  int buffered_steps);

// Where a rank runs, and with how many others on its node.
struct RankPlace {
  comm::CpuPlacement cpus;
  int node_ranks = 1;
  int threads(const PipelineChoice& choice) const;
};
RankPlace place_of(const comm::World& world, const Layout& layout);

// f16 has more precision than bf16, so on a CPU, which has no f16, it is not thrown away unasked.
// Throws UsageError.
io::DType compute_dtype(const PipelineChoice& choice, DeviceKind device, io::DType stored);
io::DType compute_kv_dtype(const PipelineChoice& choice, DeviceKind device, io::DType dtype);

// What a stage may take for weights and activations; 0: all that its device has.
std::uint64_t load_memory(const StageDevice& device, int node_ranks);

// What measurements on this rank depend on.
model::CalibrationKey calibration_key(const StageDevice& device, const RankPlace& place,
                                      int threads, const model::ModelConfig& config,
                                      io::DType dtype, io::DType kv_dtype);

// A stage that is loaded, with its cache, and what all stages of all replicas agreed on.
struct StageSetup {
  io::CheckpointReader checkpoint;
  model::ModelConfig config;
  io::DType dtype;
  io::DType kv_dtype;
  std::uint32_t context_limit = 0;
  std::unique_ptr<model::Stage> stage;
  PipelineOptions options;
  model::StepCost cost;  // of the slowest stage
  StageCut cut;
  StageDevice device;
  LinkReport links;
  std::vector<StageReport> reports;   // of all stages of all replicas, in rank order
  std::vector<std::string> warnings;  // of all stages, each with its rank
  double load_seconds = 0;
  std::string rehearsal;  // "8 x h100-sxm, ndr"; empty for real devices
};

// Opens the checkpoint, cuts the stages, connects the links, loads this stage's weights, sizes and
// allocates the cache. `device` is what take_device() gave.
// A driver gives the checkpoint that it opened, tokenizer and all, and with it what all stages must
// have alike: theirs is compared with its digest. `loading` hears of the weights.
// Collective over all replicas: if any stage fails, all throw comm::AgreeError.
StageSetup set_up_stage(comm::Endpoint& endpoint, const comm::World& world, const Layout& layout,
                        const StageDevice& device, const PipelineChoice& choice,
                        std::optional<io::CheckpointReader> opened = std::nullopt,
                        const model::LoadProgress& loading = {});

}  // namespace penstock::jobs
