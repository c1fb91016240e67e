#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/link.hpp"
#include "io/dtype.hpp"
#include "jobs/report.hpp"
#include "model/calibration.hpp"
#include "model/config.hpp"
#include "model/stage_plan.hpp"
#include "model/step_cost.hpp"

// Which stage gets which layers: as the user says, by what was measured, or by a model.
namespace penstock::jobs {

// What one stage knows before the cut. All but `key` and `memory_bytes` is the same on all stages,
// or counts on stage 0 only.
struct CutInput {
  model::ModelConfig config;
  io::DType dtype = io::DType::bf16;
  io::DType kv_dtype = io::DType::bf16;
  model::CalibrationKey key;
  std::uint64_t memory_bytes = 0;    // for weights and KV cache
  std::uint64_t kv_tokens = 0;       // that the cache should hold, where memory allows
  std::vector<std::int64_t> layers;  // of each stage, as the user says; empty: to be found
  std::string calibration;           // the file to look into; empty: none
  model::StepShape step;             // that the slowest stage is to be fast for
  bool drawn = false;                // its tokens are drawn at random
  std::shared_ptr<const model::PartCost> modelled;  // where nothing was measured
  std::string described;  // the virtual devices that `modelled` is of; else only ratios count
};

struct StageCut {
  std::vector<model::StageRange> ranges;
  std::vector<model::StepCost> costs;  // of each stage
  model::StepShape step;
  // Whether `costs` are seconds: of measurements, or of devices that are described. If not, only
  // their ratios mean anything.
  bool in_seconds = false;
  std::string source;  // for the header: where the cut is from
  std::vector<std::string> warnings;

  const model::StepCost& slowest() const;
  std::vector<double> seconds(const model::StepShape& shape) const;  // of each stage
};

// Stage 0 cuts and all take its cut. A calibration that cannot be read, or that lacks one of the
// ranks' machines, is not used, and the source or a warning says so. Collective; throws
// comm::AgreeError on all stages where no cut fits the memory, or `layers` fit no model.
StageCut agree_on_cut(comm::Endpoint& endpoint, const CutInput& mine);

// What the slowest stage takes for `shape` in the best cut that there is, if memory did not matter,
// as a part of what it takes in this one: at most 1.
double best_cut_part(const StageCut& cut, const model::StepShape& shape);

// The mean time that the stages computed for one of `steps` steps, and what `cut` predicts for
// `shapes`, which stand for them, if its costs are seconds.
StepTimes step_times(const StageCut& cut, const std::vector<LedgerTotals>& stages,
                     std::span<const model::StepShape> shapes, std::uint64_t steps);

// "14.2 ms" for `step` on each stage, or in percent of the slowest where costs are ratios.
std::vector<std::string> format_predicted(const StageCut& cut);

}  // namespace penstock::jobs
