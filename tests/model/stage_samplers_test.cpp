#include "model/stage_samplers.hpp"

#include <gtest/gtest.h>

#include <random>

namespace penstock::model {
namespace {

constexpr std::size_t kVocab = 1000;

// Greedy, drawn from all, with each filter and with penalties: all kinds share a thread's scratch.
SamplingParams params(std::uint32_t sequence) {
  SamplingParams p;
  p.seed = 3;
  if (sequence % 6 > 0) p.temperature = 0.9f;
  if (sequence % 6 == 2) p.top_k = 20;
  if (sequence % 6 == 3) p.top_p = 0.7f;
  if (sequence % 6 == 4) p.min_p = 0.2f;
  if (sequence % 6 == 5) p.repetition_penalty = 1.5f;
  return p;
}

std::vector<float> logits_of(std::uint32_t sequence, std::uint32_t step) {
  std::mt19937 generator(sequence * 100 + step);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> row(kVocab);
  for (float& logit : row) logit = normal(generator);
  return row;
}

StepPlan plan_of(const std::vector<std::uint32_t>& sequences, bool admit) {
  StepPlan plan;
  for (const std::uint32_t sequence : sequences) {
    if (admit) plan.admitted.push_back({sequence, sequence, params(sequence), {1, 2, 3}, 3});
    SequenceStep step;
    step.sequence = sequence;
    step.first_row = plan.rows();
    step.rows = 1;
    step.sample = true;
    plan.sequences.push_back(step);
    plan.tokens.push_back(0);
  }
  return plan;
}

// The ids of three steps.
std::vector<std::int32_t> ids_of(const std::vector<std::uint32_t>& sequences, int threads) {
  StageSamplers samplers(kVocab, threads);
  std::vector<std::int32_t> all;
  for (std::uint32_t step = 0; step < 3; ++step) {
    const StepPlan plan = plan_of(sequences, step == 0);
    samplers.update(plan);
    std::vector<float> logits;
    for (const std::uint32_t sequence : sequences) {
      const std::vector<float> row = logits_of(sequence, step);
      logits.insert(logits.end(), row.begin(), row.end());
    }
    std::vector<std::int32_t> ids;
    samplers.sample(plan, logits, ids);
    all.insert(all.end(), ids.begin(), ids.end());
  }
  return all;
}

TEST(StageSamplers, IdsDependOnNoThreadAndNoNeighbour) {
  std::vector<std::uint32_t> sequences(30);
  for (std::uint32_t i = 0; i < 30; ++i) sequences[i] = i;
  const std::vector<std::int32_t> together = ids_of(sequences, 1);
  EXPECT_EQ(ids_of(sequences, 2), together);
  EXPECT_EQ(ids_of(sequences, 7), together);
  for (const std::uint32_t sequence : sequences) {
    const std::vector<std::int32_t> alone = ids_of({sequence}, 1);
    for (std::size_t step = 0; step < 3; ++step) {
      EXPECT_EQ(alone[step], together[step * 30 + sequence]) << sequence << " in step " << step;
    }
  }
}

// What a stage checks its memory by.
TEST(StageSamplers, ScratchNeverGrows) {
  SamplerScratch scratch(kVocab);
  EXPECT_EQ(SamplerScratch::bytes(kVocab), kVocab * (4 + 4 + 8));
  const auto bytes = [&scratch] {
    return (scratch.logits.capacity() + scratch.distribution.weights.capacity()) * sizeof(float) +
           scratch.distribution.kept.capacity() * sizeof(TokenProbability);
  };
  EXPECT_EQ(bytes(), SamplerScratch::bytes(kVocab));
  const std::vector<float> flat(kVocab, 1.0f);
  for (std::uint32_t sequence = 0; sequence < 6; ++sequence) {
    SamplingParams p = params(sequence);
    if (p.top_k > 0) p.top_k = 999;
    Sampler(p, 0, {}, 0).sample(flat, scratch);
  }
  EXPECT_EQ(bytes(), SamplerScratch::bytes(kVocab));
}

}  // namespace
}  // namespace penstock::model
