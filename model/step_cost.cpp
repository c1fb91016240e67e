#include "model/step_cost.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace penstock::model {
namespace {

class LimitsCost : public PartCost {
 public:
  LimitsCost(const ModelConfig& config, io::DType dtype, io::DType kv_dtype,
             const MachineLimits& limits) {
    const auto part = [&](const StageRange& range) {
      const StageCost cost = cost_of(config, range, dtype);
      return Part{static_cast<double>(cost.weight_bytes) / limits.bytes_per_second,
                  cost.flops_per_token / limits.flops_per_second};
    };
    embedding_ = part({0, 0, true, false});
    layer_ = part({0, 1, false, false});
    head_ = part({0, 0, false, true});
    const auto heads_width = static_cast<double>(config.num_heads * config.head_dim);
    const auto kv_width = static_cast<double>(config.num_kv_heads * config.head_dim);
    // Scores and their weighted sum: two multiply-adds for each head dimension and position.
    attended_ = 4.0 * heads_width / limits.flops_per_second;
    cached_ = 2.0 * kv_width * static_cast<double>(io::size_of(kv_dtype)) / limits.bytes_per_second;
  }

  double step() const override { return 0; }
  double embedding(const StepShape& shape) const override { return embedding_.seconds(shape.rows); }
  double layer(const StepShape& shape) const override {
    return layer_.seconds(shape.rows) + attended_ * static_cast<double>(shape.attended) +
           cached_ * static_cast<double>(shape.cached);
  }
  double head(const StepShape& shape) const override { return head_.seconds(shape.sampled); }

 private:
  struct Part {
    double weights = 0;
    double row = 0;
    double seconds(std::uint64_t rows) const { return weights + row * static_cast<double>(rows); }
  };
  Part embedding_;
  Part layer_;
  Part head_;
  double attended_ = 0;
  double cached_ = 0;
};

}  // namespace

StepShape shape_of(const StepPlan& plan) {
  StepShape shape;
  shape.rows = plan.rows();
  for (const SequenceStep& sequence : plan.sequences) {
    const std::uint64_t rows = sequence.rows;
    shape.sampled += sequence.sample ? 1 : 0;
    shape.attended += rows * sequence.position + rows * (rows + 1) / 2;
    shape.cached += sequence.position + rows;
  }
  return shape;
}

StepShape operator+(const StepShape& a, const StepShape& b) {
  return {a.rows + b.rows, a.sampled + b.sampled, a.attended + b.attended, a.cached + b.cached};
}

StepShape mean_of(const StepShape& sum, std::uint64_t steps) {
  const auto mean = [&](std::uint64_t value) {
    return steps == 0 ? 0 : (value + steps / 2) / steps;
  };
  return {mean(sum.rows), mean(sum.sampled), mean(sum.attended), mean(sum.cached)};
}

StepShape decode_step(std::uint64_t sequences, double context) {
  const auto positions =
      static_cast<std::uint64_t>(std::llround(static_cast<double>(sequences) * (context + 1)));
  return {sequences, sequences, positions, positions};
}

StepShape steady_step(std::uint64_t sequences, double prompt_tokens, double answer_tokens) {
  const double answer = std::max(answer_tokens, 1.0);
  StepShape shape = decode_step(sequences, prompt_tokens + answer / 2);
  // Each of the sequences is replaced by a new one every `answer` steps.
  const double prompts = static_cast<double>(sequences) / answer;
  shape.rows += static_cast<std::uint64_t>(std::llround(prompts * prompt_tokens));
  shape.attended +=
      static_cast<std::uint64_t>(std::llround(prompts * prompt_tokens * (prompt_tokens + 1) / 2));
  shape.cached += static_cast<std::uint64_t>(std::llround(prompts * prompt_tokens));
  return shape;
}

PartSeconds part_seconds(const PartCost& parts, const StepShape& shape) {
  return {parts.step(), parts.embedding(shape), parts.layer(shape), parts.head(shape)};
}

std::shared_ptr<const PartCost> cost_by_limits(const ModelConfig& config, io::DType dtype,
                                               io::DType kv_dtype, const MachineLimits& limits) {
  return std::make_shared<LimitsCost>(config, dtype, kv_dtype, limits);
}

StepCost::StepCost(std::shared_ptr<const PartCost> parts, const StageRange& range)
    : parts_(std::move(parts)), range_(range) {}

double StepCost::seconds(const StepShape& shape) const {
  double seconds = parts_->step() + static_cast<double>(range_.layers()) * parts_->layer(shape);
  if (range_.first) seconds += parts_->embedding(shape);
  if (range_.last) seconds += parts_->head(shape);
  return seconds;
}

bool StepCost::operator==(const StepCost& other) const {
  return parts_ == other.parts_ && range_.layers() == other.range_.layers() &&
         range_.first == other.range_.first && range_.last == other.range_.last;
}

}  // namespace penstock::model
