#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "tests/jobs/watched_replay.hpp"

// That the scheduler's plans keep a pipeline busy, at sizes that no test machine has.
namespace penstock::jobs {
namespace {

// As many records as fill the memory some four times: prompts come and go all the time.
Watched steady(int stages) {
  const ReplayPipeline pipeline = h100s(stages);
  const std::uint64_t at_once = pipeline.limits.kv_blocks / 10;  // of 300 tokens
  std::mt19937 random(7);
  return watch(pipeline,
               records(std::min<std::uint64_t>(at_once, 3000) * 4, [random](std::uint64_t) mutable {
                 const auto answer = static_cast<std::uint32_t>(
                     std::uniform_int_distribution<int>(20, 180)(random));
                 return ReplayRecord{200, answer, 180};
               }));
}

class Schedule : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Stages, Schedule, testing::Values(4, 8, 16, 64));

TEST_P(Schedule, NoStageStarvesWhileThereIsWork) {
  const Watched watched = steady(GetParam());
  EXPECT_GT(watched.fill(0.3, 0.6), GetParam() <= 8 ? 0.98 : 0.95);
}

// Each slot takes the same time, and no single step is much longer than the others of its round.
TEST_P(Schedule, SlotsTakeTheSamePredictedTime) {
  const Watched watched = steady(GetParam());
  const auto slots = static_cast<std::size_t>(GetParam()) + 1;
  const std::span<const Seen> steps = watched.between(0.3, 0.6);
  std::vector<double> of_slot(slots);
  double above = 0;
  std::size_t rounds = 0;
  for (std::size_t i = 0; i + slots <= steps.size(); i += slots) {
    double sum = 0;
    double longest = 0;
    for (const Seen& step : steps.subspan(i, slots)) {
      of_slot[step.slot] += step.predicted;
      sum += step.predicted;
      longest = std::max(longest, step.predicted);
    }
    above += longest / (sum / static_cast<double>(slots)) - 1;
    ++rounds;
  }
  EXPECT_LT(above / static_cast<double>(rounds), 0.15);
  const double mean =
      std::accumulate(of_slot.begin(), of_slot.end(), 0.0) / static_cast<double>(slots);
  for (std::size_t slot = 0; slot < slots; ++slot) {
    EXPECT_NEAR(of_slot[slot] / mean, 1, 0.10) << "slot " << slot;
  }
}

// All decode; then one comes with a prompt of 100,000 tokens.
TEST(Schedule, AGiantPromptStallsDecodeByNoMoreThanAChunk) {
  for (const int stages : {4, 8, 16}) {
    SCOPED_TRACE(testing::Message() << stages << " stages");
    const ReplayPipeline pipeline = h100s(stages);
    const std::uint64_t small = std::uint64_t{30} * pipeline.limits.slots;
    const Watched watched =
        watch(pipeline, records(small + 1, [&](std::uint64_t i) {
                return i < small ? ReplayRecord{64, 3000, 3000} : ReplayRecord{100000, 10, 3000};
              }));
    // Between a slot's tokens, while only the giant is prefilled.
    std::vector<double> last(pipeline.limits.slots);
    double longest_stalled = 0;
    double longest_free = 0;
    std::uint64_t chunks = 0;
    std::vector<std::uint64_t> chunks_seen(pipeline.limits.slots);
    for (const Seen& step : watched.steps) {
      const bool all_decode = step.sampled >= 30;
      chunks += step.rows - step.sampled > 0 ? 1 : 0;
      const double gap = step.back - last[step.slot];
      const std::uint64_t chunks_between = chunks - chunks_seen[step.slot];
      last[step.slot] = step.back;
      chunks_seen[step.slot] = chunks;
      if (!all_decode || step.back < watched.steps[watched.steps.size() / 100].back) continue;
      (chunks_between > 0 ? longest_stalled : longest_free) =
          std::max(chunks_between > 0 ? longest_stalled : longest_free, gap);
    }
    EXPECT_GT(chunks, 100u);
    ASSERT_GT(longest_free, 0);
    // A round is one step of each slot; a chunk adds at most as much again as one of them.
    EXPECT_LT(longest_stalled, longest_free * (1 + 1.0 / stages));
  }
}

// From the last admission on, the answers that were begun last still need a round for each token.
TEST_P(Schedule, TheDrainEndsWithTheLongestAnswer) {
  const ReplayPipeline pipeline = h100s(GetParam());
  const std::uint64_t count = std::uint64_t{20} * pipeline.limits.slots;
  const Watched watched = watch(pipeline, records(count, [](std::uint64_t) {
                                  return ReplayRecord{100, 400, 400};
                                }));
  const model::StepShape step{20, 20, 20 * 500, 20 * 500};
  const double round = pipeline.limits.slots * pipeline.planning_cost.seconds(step);
  // All are admitted in the first rounds, in which the steps are long.
  const model::StepShape prompts{2048, 20, 2048 * 50, 2048};
  const double prefill = static_cast<double>(pipeline.limits.slots + GetParam()) *
                         pipeline.planning_cost.seconds(prompts);
  EXPECT_LT(watched.totals.seconds, 1.03 * 400 * round + prefill);
}

// The first slot gets all the long answers. When the others are dry, they help.
TEST(Schedule, SlotsThatRunDryAreRefilledFromOthers) {
  const ReplayPipeline pipeline = h100s(8);
  const std::uint32_t share = 120;
  const Watched watched =
      watch(pipeline, records(share * 9, [&](std::uint64_t i) {
              return i < share ? ReplayRecord{16, 8000, 8000} : ReplayRecord{16, 10, 8000};
            }));
  std::map<std::uint32_t, std::uint64_t> rows;
  for (const Seen& step : watched.between(0.7, 0.9)) {
    rows[step.slot] = std::max(rows[step.slot], step.rows);
  }
  EXPECT_GE(rows.size(), 8u);
  for (const auto& [slot, most] : rows) EXPECT_LE(most, share / 4) << "slot " << slot;
  // Alone, the first slot's steps would take a round each: eight times its own time.
  double alone = 0;
  for (std::uint64_t position = 16; position < 8016; ++position) {
    const std::uint64_t cached = share * position;
    alone += 8 * pipeline.planning_cost.seconds({share, share, cached, cached});
  }
  EXPECT_LT(watched.totals.seconds, 0.75 * alone);
}

// Answers are ten times as long as is expected at first, and the memory holds few of them.
TEST(Schedule, EvictionStormsEnd) {
  ReplayPipeline pipeline = h100s(8);
  pipeline.limits.kv_blocks = 2000;
  const std::uint64_t count = 400;
  const Watched watched = watch(pipeline, records(count, [](std::uint64_t) {
                                  return ReplayRecord{100, 1300, 4000};
                                }));
  EXPECT_EQ(watched.totals.generated_tokens, count * 1300);
  EXPECT_GT(watched.totals.evictions, 0u);
  EXPECT_LT(watched.totals.evictions, count);
  // A fifth of all work done again, at most.
  EXPECT_LT(watched.totals.prompt_tokens, count * 100 + count * 1400 / 5);
}

TEST(Schedule, AllShort) {
  const Watched watched = watch(h100s(16), records(100000, [](std::uint64_t) {
                                  return ReplayRecord{12, 2, 16};
                                }));
  EXPECT_EQ(watched.totals.generated_tokens, 200000u);
  EXPECT_GT(watched.fill(0.2, 0.8), 0.95);
  // A record has 13 rows, and a slot 256 sequences, half of which are new.
  std::uint64_t rows = 0;
  const auto steps = watched.between(0.2, 0.8);
  for (const Seen& step : steps) rows += step.rows;
  EXPECT_GT(rows / steps.size(), 1400u);
}

TEST(Schedule, AllLong) {
  const Watched watched = watch(h100s(16), records(400, [](std::uint64_t) {
                                  return ReplayRecord{30000, 500, 500};
                                }));
  EXPECT_EQ(watched.totals.generated_tokens, 400u * 500);
  EXPECT_LT(watched.totals.evictions, 20u);  // of 400, before any answer's length is known
  EXPECT_GT(watched.fill(0.2, 0.8), 0.95);
}

// The small ones are answered beside it.
TEST(Schedule, OneGiantAmongManySmallOnes) {
  const ReplayPipeline pipeline = h100s(8);
  const std::uint64_t count = 1000000;
  const auto with = [&](std::uint64_t giant) {
    return watch(
               pipeline,
               records(
                   count,
                   [=](std::uint64_t i) {
                     return i == giant ? ReplayRecord{100000, 2000, 4000} : ReplayRecord{16, 4, 4};
                   }))
        .totals;
  };
  const PipelineTotals without = with(count);
  const PipelineTotals first = with(0);
  EXPECT_EQ(first.generated_tokens, without.generated_tokens + 1996);
  EXPECT_EQ(first.evictions, 0u);
  const double alone = watch(pipeline, records(1,
                                               [](std::uint64_t) {
                                                 return ReplayRecord{100000, 2000, 4000};
                                               }))
                           .totals.seconds;
  // Its prefill and its first tokens hide behind the small ones; the rest of its answer is a round
  // for each token, whatever the scheduler does.
  EXPECT_LT(first.seconds, without.seconds + 0.75 * alone);
  EXPECT_LT(with(count / 2).seconds, without.seconds + 0.80 * alone);
}

}  // namespace
}  // namespace penstock::jobs
