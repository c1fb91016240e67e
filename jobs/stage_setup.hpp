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
#include "jobs/memory_shares.hpp"
#include "jobs/pipeline.hpp"
#include "jobs/pipeline_choice.hpp"
#include "jobs/report.hpp"
#include "jobs/stage_cut.hpp"
#include "model/config.hpp"
#include "model/stage.hpp"

namespace penstock::jobs {

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
  double trip_seconds = 0;            // the longest of any replica; 0: not measured
  std::vector<StageReport> reports;   // of all stages of all replicas, in rank order
  std::vector<std::string> warnings;  // of all stages, each with its rank
  double load_seconds = 0;
  std::string rehearsal;  // "8 x h100-sxm, ndr"; empty for real devices
};

// Opens the checkpoint, cuts the stages, connects the links, finds the number of slots, loads this
// stage's weights, sizes and allocates the cache. `device` is what take_device() gave.
// A driver gives the checkpoint that it opened, tokenizer and all, and with it what all stages must
// have alike: theirs is compared with its digest. `loading` hears of the weights.
// Collective over all replicas: if any stage fails, all throw comm::AgreeError; but if one does
// while the trip through the pipeline is measured, the others throw comm::CommError, as at work.
StageSetup set_up_stage(comm::Endpoint& endpoint, const comm::World& world, const Layout& layout,
                        const StageDevice& device, const PipelineChoice& choice,
                        std::optional<io::CheckpointReader> opened = std::nullopt,
                        const model::LoadProgress& loading = {});

}  // namespace penstock::jobs
