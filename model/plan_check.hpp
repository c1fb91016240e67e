#pragma once

#include <cstddef>
#include <cstdint>

#include "model/config.hpp"
#include "model/step_plan.hpp"

namespace penstock::model {

// What a stage can do in one step.
struct StageLimits {
  std::uint32_t max_rows = 0;
  std::uint32_t max_samples = 0;
  std::uint32_t kv_blocks = 0;
};

// Throws ModelError, naming step, sequence and limit, unless the plan can be computed: rows and
// samples within the limits, sequences distinct and without gaps, positions within the context,
// enough blocks for each sequence and all of them in the cache, token ids in the vocabulary.
void check_plan(const StepPlan& plan, const ModelConfig& config, const StageLimits& limits);

}  // namespace penstock::model
