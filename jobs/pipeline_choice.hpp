#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comm/link.hpp"
#include "io/dtype.hpp"
#include "jobs/devices.hpp"
#include "jobs/launch.hpp"
#include "jobs/virtual_machine.hpp"
#include "model/config.hpp"
#include "model/step_cost.hpp"

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
  bool drawn = false;  // answers' tokens are drawn at random, not greedily; stage 0's counts
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

// f16 has more precision than bf16, so on a CPU, which has no f16, it is not thrown away unasked.
// Throws UsageError.
io::DType compute_dtype(const PipelineChoice& choice, DeviceKind device, io::DType stored);
io::DType compute_kv_dtype(const PipelineChoice& choice, DeviceKind device, io::DType dtype);

}  // namespace penstock::jobs
