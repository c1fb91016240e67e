#include "jobs/scheduler.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace penstock::jobs {
namespace {

using model::kKvBlockTokens;

model::ModelConfig tiny_config() {
  model::ModelConfig c;
  c.hidden_size = 64;
  c.intermediate_size = 128;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 16;
  c.vocab_size = 100;
  c.max_position = 4096;
  return c;
}

model::StepCost tiny_cost() {
  return {tiny_config(), {0, 2, true, true}, io::DType::f32, io::DType::f32, {1e9, 1e9}};
}

Work work(std::uint64_t record, std::size_t prompt, std::uint32_t max_tokens) {
  Work w;
  w.record = record;
  w.max_tokens = max_tokens;
  for (std::size_t i = 0; i < prompt; ++i) {
    w.prompt.push_back(static_cast<std::int32_t>((record * 31 + i) % 100));
  }
  return w;
}

// The token that a model which reads its whole input would choose: a hash of all tokens before.
std::int32_t next_token(const std::vector<std::int32_t>& tokens) {
  std::uint32_t hash = 17;
  for (const std::int32_t t : tokens) hash = hash * 31 + static_cast<std::uint32_t>(t);
  return static_cast<std::int32_t>(hash % 100);
}

// Plays all stages at once: keeps the tokens that each KV block holds, as a cache would, and
// refuses every plan that a real stage could not compute.
class FakePipeline {
 public:
  explicit FakePipeline(const SchedulerLimits& limits)
      : limits_(limits), cache_(limits.kv_blocks) {}

  std::vector<std::int32_t> compute(const model::StepPlan& plan) {
    EXPECT_LE(plan.rows(), limits_.max_step_tokens);
    EXPECT_LE(plan.sequences.size(), limits_.max_sequences);
    EXPECT_EQ(plan.step, steps_++);
    for (const std::uint32_t handle : plan.retired) admitted_.erase(handle);
    for (const model::Admission& a : plan.admitted) {
      EXPECT_TRUE(admitted_.emplace(a.sequence, a).second) << "handle used twice";
    }
    std::vector<std::int32_t> sampled;
    std::uint32_t row = 0;
    std::set<std::uint32_t> blocks_in_plan;
    for (const model::SequenceStep& s : plan.sequences) {
      EXPECT_EQ(s.first_row, row);
      EXPECT_TRUE(admitted_.contains(s.sequence)) << "a sequence that was never admitted";
      for (std::uint32_t i = 0; i < s.blocks; ++i) {
        EXPECT_TRUE(blocks_in_plan.insert(plan.block_table[s.first_block + i]).second)
            << "two sequences share a block";
      }
      for (std::uint32_t i = 0; i < s.rows; ++i) {
        const std::uint32_t position = s.position + i;
        auto& block = cache_.at(plan.block_table[s.first_block + position / kKvBlockTokens]);
        block[position % kKvBlockTokens] = {s.sequence, plan.tokens[row++]};
      }
      if (!s.sample) continue;
      std::vector<std::int32_t> history;
      for (std::uint32_t position = 0; position < s.position + s.rows; ++position) {
        const auto& block = cache_.at(plan.block_table[s.first_block + position / kKvBlockTokens]);
        const auto& [owner, token] = block.at(position % kKvBlockTokens);
        EXPECT_EQ(owner, s.sequence) << "the cache of position " << position << " was overwritten";
        history.push_back(token);
      }
      sampled.push_back(next_token(history));
    }
    EXPECT_EQ(row, plan.rows());
    return sampled;
  }

 private:
  SchedulerLimits limits_;
  std::uint64_t steps_ = 0;
  std::vector<std::map<std::uint32_t, std::pair<std::uint32_t, std::int32_t>>> cache_;
  std::map<std::uint32_t, model::Admission> admitted_;
};

struct Played {
  std::map<std::uint64_t, std::vector<std::int32_t>> answers;
  std::vector<std::uint64_t> unfit;
  std::uint64_t evictions = 0;
  std::vector<model::StepPlan> plans;
};

// Drives the scheduler as the driver does. All steps are in flight until their slot comes round.
Played play(const SchedulerLimits& limits, std::vector<Work> todo) {
  Scheduler scheduler(limits, tiny_cost());
  FakePipeline pipeline(limits);
  std::map<std::uint64_t, std::uint32_t> wanted;
  std::vector<std::vector<std::int32_t>> results(limits.slots);
  Played played;
  std::size_t next = 0;
  int idle_rounds = 0;
  for (std::uint32_t slot = 0; idle_rounds <= static_cast<int>(limits.slots);
       slot = (slot + 1) % limits.slots) {
    if (scheduler.in_flight(slot)) {
      for (const SampledToken& t : scheduler.complete(slot, results[slot])) {
        auto& answer = played.answers[t.record];
        answer.push_back(t.token);
        if (answer.size() == wanted.at(t.record)) scheduler.finish(t.record);
      }
    }
    while (next < todo.size() && scheduler.wanted() > 0) {
      wanted[todo[next].record] = todo[next].max_tokens;
      const std::uint64_t record = todo[next].record;
      if (!scheduler.add(std::move(todo[next]))) played.unfit.push_back(record);
      ++next;
    }
    if (next == todo.size()) scheduler.set_exhausted();
    if (scheduler.idle()) break;
    const model::StepPlan plan = scheduler.plan(slot);
    for (const std::uint64_t record : scheduler.take_unfit()) played.unfit.push_back(record);
    if (plan.rows() == 0) {
      ++idle_rounds;
      continue;
    }
    idle_rounds = 0;
    results[slot] = pipeline.compute(plan);
    played.plans.push_back(plan);
  }
  EXPECT_TRUE(scheduler.idle()) << "the scheduler stopped planning with records left";
  EXPECT_EQ(scheduler.pool().free(), limits.kv_blocks);
  played.evictions = scheduler.evictions();
  return played;
}

std::vector<std::int32_t> expected_answer(const Work& w) {
  std::vector<std::int32_t> tokens = w.prompt;
  for (std::uint32_t i = 0; i < w.max_tokens; ++i) tokens.push_back(next_token(tokens));
  return {tokens.begin() + static_cast<std::ptrdiff_t>(w.prompt.size()), tokens.end()};
}

TEST(Scheduler, PrefillsInChunksThenDecodes) {
  const Played played = play({1, 10, 10, 100}, {work(7, 25, 3)});
  ASSERT_EQ(played.plans.size(), 5u);
  const std::vector<std::uint32_t> rows = {10, 10, 5, 1, 1};
  const std::vector<std::uint32_t> positions = {0, 10, 20, 25, 26};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const model::SequenceStep& s = played.plans[i].sequences.at(0);
    EXPECT_EQ(s.rows, rows[i]);
    EXPECT_EQ(s.position, positions[i]);
    EXPECT_EQ(s.sample, i >= 2);
  }
  ASSERT_EQ(played.plans[0].admitted.size(), 1u);
  EXPECT_EQ(played.plans[0].admitted[0].record, 7u);
  EXPECT_EQ(played.plans[0].admitted[0].prompt_tokens, 25u);
  EXPECT_TRUE(played.plans[1].admitted.empty());
}

TEST(Scheduler, SharesFewRecordsOutOverTheSlots) {
  const Played played = play({3, 64, 64, 100}, {work(0, 4, 2), work(1, 4, 2), work(2, 4, 2)});
  ASSERT_GE(played.plans.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(played.plans[i].sequences.size(), 1u);
    EXPECT_EQ(played.plans[i].slot, i);
  }
}

TEST(Scheduler, TellsWhenThePipelineRunsEmpty) {
  // Three records in two slots of one: at the end one slot has nothing left.
  const Played played = play({2, 4, 1, 100}, {work(0, 4, 2), work(1, 4, 2), work(2, 4, 9)});
  EXPECT_FALSE(played.plans.front().draining);
  EXPECT_TRUE(played.plans.back().draining);
  const auto first = std::find_if(played.plans.begin(), played.plans.end(),
                                  [](const model::StepPlan& plan) { return plan.draining; });
  std::set<std::uint64_t> admitted;
  for (auto plan = played.plans.begin(); plan <= first; ++plan) {
    for (const model::Admission& a : plan->admitted) admitted.insert(a.record);
  }
  EXPECT_EQ(admitted.size(), 3u);
}

TEST(Scheduler, RefusesAPromptThatCanNeverFit) {
  Scheduler scheduler({1, 64, 64, 2}, tiny_cost());
  EXPECT_FALSE(scheduler.add(work(0, 2 * kKvBlockTokens, 1)));
  EXPECT_TRUE(scheduler.add(work(1, 2 * kKvBlockTokens - 1, 1)));
}

TEST(Scheduler, WantsNoMoreWaitingTokensThanAboutTheKvMemoryHolds) {
  const std::size_t blocks = 100;
  Scheduler scheduler({2, 64, 64, blocks}, tiny_cost());
  const std::size_t prompt = 40 * kKvBlockTokens;
  std::uint64_t records = 0;
  while (scheduler.wanted() > 0 && records < 1000) {
    ASSERT_TRUE(scheduler.add(work(records++, prompt, 1)));
  }
  EXPECT_EQ(records, 3u);  // 120 blocks; the memory and two steps are 100 and 4 or 8
  // A prompt that leaves the queue makes room for another.
  scheduler.plan(0);
  scheduler.plan(1);
  EXPECT_GT(scheduler.wanted(), 0u);
}

TEST(Scheduler, GivesUpARecordThatFillsAllMemoryAlone) {
  const Played played = play({2, 64, 64, 2}, {work(0, 40, 100), work(1, 10, 5), work(2, 10, 5)});
  EXPECT_EQ(played.unfit, std::vector<std::uint64_t>{0});
  EXPECT_EQ(played.answers.at(1).size(), 5u);
  EXPECT_EQ(played.answers.at(2).size(), 5u);
}

TEST(Scheduler, EvictsTheYoungest) {
  // Answers are longer than admission expects (128 tokens): two sequences that grow to ten blocks
  // each come to share twelve.
  const Played played =
      play({1, 64, 64, 12}, {work(0, 10, 300), work(1, 10, 300), work(2, 10, 300)});
  EXPECT_GT(played.evictions, 0u);
  std::set<std::uint64_t> readmitted;
  std::set<std::uint64_t> seen;
  for (const model::StepPlan& plan : played.plans) {
    for (const model::Admission& a : plan.admitted) {
      if (!seen.insert(a.record).second) readmitted.insert(a.record);
    }
  }
  EXPECT_FALSE(readmitted.contains(0)) << "the oldest never has to go";
}

TEST(Scheduler, CompletingAStepNeedsAsManyTokensAsItSamples) {
  Scheduler scheduler({1, 64, 64, 4}, tiny_cost());
  ASSERT_TRUE(scheduler.add(work(0, 3, 2)));
  ASSERT_EQ(scheduler.plan(0).rows(), 3u);
  EXPECT_THROW(scheduler.complete(0, {}), std::runtime_error);
  EXPECT_THROW(scheduler.plan(0), std::logic_error);
}

TEST(Scheduler, PrefillOfASlotStaysNearTheStepsInFlight) {
  // Slot 0 decodes; slot 1 gets a long prompt. Its first chunk must not take all of the rows.
  Scheduler scheduler({2, 2048, 64, 1000}, tiny_cost());
  ASSERT_TRUE(scheduler.add(work(0, 8, 100)));
  ASSERT_EQ(scheduler.plan(0).rows(), 8u);
  ASSERT_TRUE(scheduler.add(work(1, 2000, 5)));
  const model::StepPlan plan = scheduler.plan(1);
  EXPECT_GE(plan.rows(), 32u);
  EXPECT_LT(plan.rows(), 200u);
}

// Whatever the limits, every record's answer is that of a model which saw exactly its own tokens:
// tables, chunks, evictions and slots never mix sequences up.
TEST(Scheduler, AnswersDoNotDependOnLimits) {
  std::mt19937 random(1);
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  std::uint64_t evictions = 0;
  for (int round = 0; round < 150; ++round) {
    SchedulerLimits limits;
    limits.slots = static_cast<std::uint32_t>(pick(1, 5));
    limits.max_step_tokens = static_cast<std::uint32_t>(pick(1, 100));
    limits.max_sequences = static_cast<std::uint32_t>(pick(1, 20));
    limits.kv_blocks = static_cast<std::uint32_t>(pick(4, 30));
    std::vector<Work> todo;
    const int records = pick(1, 40);
    for (int i = 0; i < records; ++i) {
      todo.push_back(work(static_cast<std::uint64_t>(i), static_cast<std::size_t>(pick(1, 60)),
                          static_cast<std::uint32_t>(pick(1, 50))));
    }
    const std::vector<Work> all = todo;
    limits.max_sequences = std::min(limits.max_sequences, limits.max_step_tokens);
    const Played played = play(limits, std::move(todo));
    EXPECT_TRUE(played.unfit.empty());
    for (const Work& w : all) {
      EXPECT_EQ(played.answers.at(w.record), expected_answer(w)) << "round " << round;
    }
    evictions += played.evictions;
    ASSERT_FALSE(testing::Test::HasFailure()) << "round " << round;
  }
  EXPECT_GT(evictions, 50u) << "the rounds were meant to run out of memory";
}

}  // namespace
}  // namespace penstock::jobs
