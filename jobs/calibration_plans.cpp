#include <algorithm>

#include "jobs/calibrate.hpp"

namespace penstock::jobs {
namespace {

// Tokens before a step of decoding: little, and enough that attention's time shows.
constexpr std::uint32_t kShortContext = 31;
constexpr std::uint32_t kLongContext = 511;
// Of the steps whose attention is compared.
constexpr std::uint32_t kComparedSequences[] = {8, 32};

std::uint32_t blocks_for(std::uint32_t tokens) {
  return (tokens + model::kKvBlockTokens - 1) / model::kKvBlockTokens;
}

}  // namespace

model::StepShape CalibrationStep::shape() const {
  const std::uint64_t n = sequences;
  const std::uint64_t r = rows;
  return {n * r, sample ? n : 0, n * (r * position + r * (r + 1) / 2), n * (position + r)};
}

std::vector<CalibrationStep> calibration_steps(std::uint32_t max_rows, std::uint32_t max_sequences,
                                               std::uint32_t context) {
  std::vector<CalibrationStep> steps;
  const std::uint32_t most = std::min(max_rows, max_sequences);
  const std::uint32_t little = std::min(kShortContext, context - 1);
  const std::uint32_t much = std::min(kLongContext, context - 1);
  for (std::uint32_t n = 1; n <= most; n *= 2) steps.push_back({n, 1, little});
  for (const std::uint32_t n : kComparedSequences) {
    if (n <= most && much > little) steps.push_back({n, 1, much});
  }
  for (std::uint32_t r = 128; r <= std::min(max_rows, context); r *= 2) {
    steps.push_back({1, r, 0});
    const std::uint32_t before = std::min(kLongContext + 1, context - r);
    if (before > 0) steps.push_back({1, r, before});
  }
  return steps;
}

CalibrationPlans::CalibrationPlans(std::span<const CalibrationStep> steps) {
  for (const CalibrationStep& step : steps) {
    tokens_.resize(std::max<std::size_t>(tokens_.size(), step.sequences));
    for (std::uint32_t i = 0; i < step.sequences; ++i) {
      tokens_[i] = std::max(tokens_[i], step.position + step.rows);
    }
  }
  for (const std::uint32_t tokens : tokens_) {
    first_block_.push_back(kv_blocks_);
    kv_blocks_ += blocks_for(tokens);
  }
}

void CalibrationPlans::add(model::StepPlan& plan, std::uint32_t sequence, std::uint32_t position,
                           std::uint32_t rows, bool sample, std::int64_t vocab_size) const {
  model::SequenceStep step;
  step.sequence = sequence;
  step.first_row = plan.rows();
  step.rows = rows;
  step.position = position;
  step.first_block = static_cast<std::uint32_t>(plan.block_table.size());
  step.blocks = blocks_for(position + rows);
  step.sample = sample;
  plan.sequences.push_back(step);
  for (std::uint32_t i = 0; i < rows; ++i) {
    // Spread over the vocabulary.
    const std::uint64_t mixed = (std::uint64_t{sequence} * 7919 + position + i) * 2654435761u;
    plan.tokens.push_back(
        static_cast<std::int32_t>(mixed % static_cast<std::uint64_t>(vocab_size)));
  }
  for (std::uint32_t i = 0; i < step.blocks; ++i) {
    plan.block_table.push_back(first_block_[sequence] + i);
  }
}

std::vector<model::StepPlan> CalibrationPlans::fill(std::uint32_t max_rows,
                                                    std::int64_t vocab_size) {
  std::vector<model::StepPlan> plans(1);
  for (std::uint32_t sequence = 0; sequence < tokens_.size(); ++sequence) {
    plans[0].admitted.push_back({sequence, sequence, {}, {0}, 1});
    for (std::uint32_t position = 0; position < tokens_[sequence];) {
      // A sequence comes once in a step.
      const bool again = position > 0;
      if (again || plans.back().rows() == max_rows) plans.emplace_back();
      const std::uint32_t rows =
          std::min(max_rows - plans.back().rows(), tokens_[sequence] - position);
      add(plans.back(), sequence, position, rows, false, vocab_size);
      position += rows;
    }
  }
  for (model::StepPlan& plan : plans) plan.step = step_++;
  return plans;
}

model::StepPlan CalibrationPlans::plan(const CalibrationStep& step, std::int64_t vocab_size) {
  model::StepPlan plan;
  plan.step = step_++;
  for (std::uint32_t i = 0; i < step.sequences; ++i) {
    add(plan, i, step.position, step.rows, step.sample, vocab_size);
  }
  return plan;
}

}  // namespace penstock::jobs
