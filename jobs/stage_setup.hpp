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
#include "io/checkpoint.hpp"
#include "jobs/agreement.hpp"
#include "jobs/devices.hpp"
#include "jobs/launch.hpp"
#include "jobs/pipeline.hpp"
#include "jobs/report.hpp"
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
  std::uint64_t kv_memory = 0;                             // bytes a rank
  std::chrono::seconds watchdog = comm::kDefaultWatchdog;  // for run_stages()
};

// Throws UsageError for options of which one makes no sense with another.
void check_choice(const PipelineChoice& choice);

// Tokens of a prompt and its answer together.
std::uint32_t context_limit(const model::ModelConfig& config, const PipelineChoice& choice);

// A stage that is loaded, with its cache, and what all stages of all replicas agreed on.
struct StageSetup {
  io::CheckpointReader checkpoint;
  model::ModelConfig config;
  io::DType dtype;
  io::DType kv_dtype;
  std::uint32_t context_limit = 0;
  std::unique_ptr<model::Stage> stage;
  PipelineOptions options;
  std::shared_ptr<const model::PartCost> parts;
  std::vector<model::StageRange> ranges;  // of all stages
  model::StepCost cost;                   // of the slowest stage
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
