#pragma once

#include <cstdint>

#include "io/dtype.hpp"
#include "model/config.hpp"
#include "model/ops/machine_limits.hpp"
#include "model/stage_plan.hpp"

namespace penstock::model {

// The shape of a step, as far as its time goes.
struct StepShape {
  std::uint64_t rows = 0;
  std::uint64_t sampled = 0;   // rows that go through the head
  std::uint64_t attended = 0;  // sum over rows of the positions each attends to
  std::uint64_t cached = 0;    // sum over sequences of the positions read from the cache
};

// Predicts a step's time on one stage: weights and KV read once, products, attention. Arithmetic
// and memory are added up, since the matrix library does not overlap them in decode.
class StepCost {
 public:
  StepCost(const ModelConfig& config, const StageRange& range, io::DType dtype, io::DType kv_dtype,
           const MachineLimits& limits);
  double seconds(const StepShape& shape) const;

 private:
  double per_step_ = 0;
  double per_row_ = 0;
  double per_sampled_ = 0;
  double per_attended_ = 0;
  double per_cached_ = 0;
};

}  // namespace penstock::model
