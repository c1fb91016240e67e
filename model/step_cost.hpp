#pragma once

#include <cstdint>
#include <memory>

#include "io/dtype.hpp"
#include "model/config.hpp"
#include "model/ops/machine_limits.hpp"
#include "model/stage_plan.hpp"
#include "model/step_plan.hpp"

namespace penstock::model {

// The shape of a step, as far as its time goes.
struct StepShape {
  std::uint64_t rows = 0;
  std::uint64_t sampled = 0;   // rows that go through the head
  std::uint64_t attended = 0;  // sum over rows of the positions each attends to
  std::uint64_t cached = 0;    // sum over sequences of the positions read from the cache
};

StepShape shape_of(const StepPlan& plan);
StepShape operator+(const StepShape& a, const StepShape& b);
// What each of `steps` steps has, that are `sum` together.
StepShape mean_of(const StepShape& sum, std::uint64_t steps);

// A step of decoding alone: `sequences` in one slot, each with `context` positions before it.
StepShape decode_step(std::uint64_t sequences, double context);

// The mean step of a long job: `sequences` of a slot decode, and as many tokens of new prompts are
// computed as make up for the answers that end.
StepShape steady_step(std::uint64_t sequences, double prompt_tokens, double answer_tokens);

// Predicts how long the parts of one network take on one kind of device, in seconds. All layers
// are alike. Immutable: any thread.
class PartCost {
 public:
  virtual ~PartCost() = default;
  virtual double step() const = 0;  // of any step, whatever its rows and layers
  virtual double embedding(const StepShape& shape) const = 0;
  virtual double layer(const StepShape& shape) const = 0;
  virtual double head(const StepShape& shape) const = 0;  // final norm, LM head, sampling
};

// Of one step, for cut_stages().
PartSeconds part_seconds(const PartCost& parts, const StepShape& shape);

// By flops and bytes: weights and KV read once, products, attention. Arithmetic and memory are
// added up, since the matrix library does not overlap them in decode.
std::shared_ptr<const PartCost> cost_by_limits(const ModelConfig& config, io::DType dtype,
                                               io::DType kv_dtype, const MachineLimits& limits);

// Predicts a step's time on one stage.
class StepCost {
 public:
  StepCost(std::shared_ptr<const PartCost> parts, const StageRange& range);
  double seconds(const StepShape& shape) const;
  const std::shared_ptr<const PartCost>& parts() const { return parts_; }
  // Same parts, of the same number: the same seconds.
  bool operator==(const StepCost& other) const;

 private:
  std::shared_ptr<const PartCost> parts_;
  StageRange range_;
};

}  // namespace penstock::model
