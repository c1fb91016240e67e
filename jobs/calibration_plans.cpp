#include <algorithm>

#include "jobs/calibrate.hpp"

namespace penstock::jobs {
namespace {

// Tokens before a step of decoding: little, and enough that attention's time shows.
constexpr std::uint32_t kShortContext = 31;
constexpr std::uint32_t kLongContext = 511;
// Of the steps whose attention is compared.
constexpr std::uint32_t kComparedSequences[] = {8, 32};
// Of the steps whose tokens are drawn at random, with a usual filter. How long that takes depends
// on how many tokens are likely: few where a text has sense, but most of them where the tokens mean
// nothing, as here. So cold that few are likely, whatever the logits.
constexpr std::uint32_t kDrawnSequences[] = {1, 8, 32, 128, 256};
constexpr float kTemperature = 0.05f;
constexpr float kTopP = 0.95f;

std::uint32_t blocks_for(std::uint32_t tokens) {
  return (tokens + model::kKvBlockTokens - 1) / model::kKvBlockTokens;
}

// Products are computed for lots of rows, larger ones where there are many, and take as long for
// one row too many as for all of the next lot. So the first and the last number of each lot:
// between a power of two and the next a quarter of it, the CPU's products' and GPU graphs' lots or
// a part of them.
std::vector<std::uint32_t> stairs(std::uint32_t most) {
  std::vector<std::uint32_t> rows;
  for (std::uint32_t n = 1; n <= std::min(8u, most); ++n) rows.push_back(n);
  for (std::uint32_t from = 8; from < most; from *= 2) {
    const std::uint32_t lot = from / 4;
    for (std::uint32_t n = from; n < std::min(2 * from, most); n += lot) {
      rows.push_back(n + 1);
      if (n + lot <= most) rows.push_back(n + lot);
    }
  }
  if (rows.back() != most) rows.push_back(most);
  return rows;
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
  for (const std::uint32_t n : stairs(most)) steps.push_back({n, 1, little});
  for (const std::uint32_t n : kComparedSequences) {
    if (n <= most && much > little) steps.push_back({n, 1, much});
  }
  for (const std::uint32_t n : kDrawnSequences) {
    if (n <= most) steps.push_back({n, 1, little, true, true});
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

// Of `step` what one sequence does.
void CalibrationPlans::add(model::StepPlan& plan, std::uint32_t sequence,
                           const CalibrationStep& step, std::int64_t vocab_size) const {
  model::SequenceStep part;
  part.sequence = step.drawn ? drawn_twin(sequence) : sequence;
  part.first_row = plan.rows();
  part.rows = step.rows;
  part.position = step.position;
  part.first_block = static_cast<std::uint32_t>(plan.block_table.size());
  part.blocks = blocks_for(step.position + step.rows);
  part.sample = step.sample;
  plan.sequences.push_back(part);
  for (std::uint32_t i = 0; i < step.rows; ++i) {
    // Spread over the vocabulary.
    const std::uint64_t mixed = (std::uint64_t{sequence} * 7919 + step.position + i) * 2654435761u;
    plan.tokens.push_back(
        static_cast<std::int32_t>(mixed % static_cast<std::uint64_t>(vocab_size)));
  }
  for (std::uint32_t i = 0; i < part.blocks; ++i) {
    plan.block_table.push_back(first_block_[sequence] + i);
  }
}

std::uint32_t CalibrationPlans::drawn_twin(std::uint32_t sequence) const {
  return static_cast<std::uint32_t>(tokens_.size()) + sequence;
}

std::vector<model::StepPlan> CalibrationPlans::fill(std::uint32_t max_rows,
                                                    std::int64_t vocab_size) {
  std::vector<model::StepPlan> plans(1);
  for (std::uint32_t sequence = 0; sequence < tokens_.size(); ++sequence) {
    plans[0].admitted.push_back({sequence, sequence, {}, {0}, 1});
    model::SamplingParams drawn;
    drawn.temperature = kTemperature;
    drawn.top_p = kTopP;
    plans[0].admitted.push_back({drawn_twin(sequence), sequence, drawn, {0}, 1});
    for (std::uint32_t position = 0; position < tokens_[sequence];) {
      // A sequence comes once in a step.
      const bool again = position > 0;
      if (again || plans.back().rows() == max_rows) plans.emplace_back();
      const std::uint32_t rows =
          std::min(max_rows - plans.back().rows(), tokens_[sequence] - position);
      add(plans.back(), sequence, {1, rows, position, false}, vocab_size);
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
    add(plan, i, step, vocab_size);
  }
  return plan;
}

}  // namespace penstock::jobs
