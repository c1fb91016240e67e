#pragma once

#include <memory>
#include <string>

#include "jobs/plan_size.hpp"
#include "model/step_cost.hpp"

// What bench --calibrate measured, for a plan that is made elsewhere.
namespace penstock::jobs {

struct MeasuredTimes {
  std::shared_ptr<const model::PartCost> parts;
  // "AMD EPYC …, 8 threads, 2 ranks a node, bf16, KV bf16, … (2026-11-23, …), greedy answers"
  std::string text;
};

// Of the file beside the checkpoint the one entry for the plan's network, numbers and kind of
// machine (GPUs or none) whose description, as `text` has it up to the bracket, contains `device`.
// `drawn`: the answers' tokens are drawn at random, not greedily.
// Throws UsageError that lists what there is, unless there is exactly one, and io::FileError.
MeasuredTimes measured_times(const std::string& checkpoint, const PlanInput& plan,
                             const std::string& device, bool drawn);

}  // namespace penstock::jobs
