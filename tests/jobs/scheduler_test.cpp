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
  return {model::cost_by_limits(tiny_config(), io::DType::f32, io::DType::f32, {1e9, 1e9}),
          {0, 2, true, true}};
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

// An answer of which an earlier run left a part, wherever that was cut.
TEST(Scheduler, AnswersGoOnBehindWhatWasGenerated) {
  for (const std::uint32_t blocks : {4U, 100U}) {
    for (std::size_t cut = 0; cut < 40; ++cut) {
      std::vector<Work> todo = {work(0, 30, 40), work(1, 7, 40), work(2, 90, 6)};
      std::vector<std::vector<std::int32_t>> rest;
      for (Work& w : todo) {
        const std::vector<std::int32_t> answer = expected_answer(w);
        const auto here =
            answer.begin() + static_cast<std::ptrdiff_t>(std::min(cut, answer.size() - 1));
        w.generated.assign(answer.begin(), here);
        rest.emplace_back(here, answer.end());
        w.max_tokens = static_cast<std::uint32_t>(rest.back().size());  // what play() waits for
      }
      const Played played = play({2, 25, 25, blocks}, todo);
      for (std::size_t i = 0; i < todo.size(); ++i) {
        EXPECT_EQ(played.answers.at(i), rest[i]) << "cut at " << cut;
      }
      // They are prefilled like the prompt, but penalties must know them apart from it.
      for (const model::StepPlan& plan : played.plans) {
        for (const model::Admission& a : plan.admitted) {
          EXPECT_EQ(a.prompt_tokens, todo.at(a.record).prompt.size());
          EXPECT_GE(a.tokens.size(), a.prompt_tokens + todo.at(a.record).generated.size());
        }
      }
    }
  }
}

// The tokens of a plan, as if computed; all records go on.
void step(Scheduler& scheduler, std::uint32_t slot) {
  const model::StepPlan plan = scheduler.plan(slot);
  if (plan.rows() == 0) return;
  const auto samples = std::count_if(plan.sequences.begin(), plan.sequences.end(),
                                     [](const model::SequenceStep& s) { return s.sample; });
  scheduler.complete(slot, std::vector<std::int32_t>(static_cast<std::size_t>(samples), 1));
}

TEST(Scheduler, OnlyThoseThatHadAStepGoOnWhenNoneIsAdmitted) {
  Scheduler scheduler({2, 64, 2, 100}, tiny_cost());
  for (std::uint64_t record = 0; record < 6; ++record) {
    ASSERT_TRUE(scheduler.add(work(record, 4, 100)));
  }
  step(scheduler, 0);  // records 0 and 1; slot 1 had nothing yet
  scheduler.set_admitting(false);
  EXPECT_FALSE(scheduler.idle());
  EXPECT_EQ(scheduler.plan(1).rows(), 0U);
  EXPECT_TRUE(scheduler.draining());
  step(scheduler, 0);
  scheduler.finish(0);
  EXPECT_FALSE(scheduler.idle());
  const model::StepPlan alone = scheduler.plan(0);
  EXPECT_EQ(alone.rows(), 1U);
  EXPECT_TRUE(alone.admitted.empty());
  scheduler.complete(0, std::vector<std::int32_t>{1});
  scheduler.finish(1);
  EXPECT_TRUE(scheduler.idle()) << "those that wait are not work now";
  EXPECT_EQ(scheduler.plan(0).rows(), 0U);
  // The end has moved.
  scheduler.set_admitting(true);
  EXPECT_FALSE(scheduler.idle());
  EXPECT_FALSE(scheduler.draining());
  EXPECT_GT(scheduler.plan(1).rows(), 0U);
}

// One that was evicted had a step, and its tokens are worth going on with.
TEST(Scheduler, TheEvictedComeBackWhenNoneIsAdmitted) {
  const SchedulerLimits limits{1, 64, 64, 12};
  Scheduler scheduler(limits, tiny_cost());
  for (std::uint64_t record = 0; record < 3; ++record) {
    ASSERT_TRUE(scheduler.add(work(record, 10, 300)));
  }
  step(scheduler, 0);
  scheduler.set_admitting(false);
  std::map<std::uint64_t, int> tokens;
  std::set<std::uint64_t> admitted_again;
  for (int round = 0; round < 2000 && !scheduler.idle(); ++round) {
    const model::StepPlan plan = scheduler.plan(0);
    ASSERT_GT(plan.rows(), 0U) << "work, but no step";
    for (const model::Admission& a : plan.admitted) admitted_again.insert(a.record);
    const auto samples = std::count_if(plan.sequences.begin(), plan.sequences.end(),
                                       [](const model::SequenceStep& s) { return s.sample; });
    for (const SampledToken& t :
         scheduler.complete(0, std::vector<std::int32_t>(static_cast<std::size_t>(samples), 1))) {
      if (++tokens[t.record] == 299) scheduler.finish(t.record);
    }
  }
  EXPECT_TRUE(scheduler.idle());
  EXPECT_GT(scheduler.evictions(), 0U);
  EXPECT_GT(admitted_again.size(), 0U);
  // Only those of the first step, of which each had one token there.
  for (const auto& [record, count] : tokens) EXPECT_EQ(count, 299) << record;
  scheduler.set_admitting(true);
  EXPECT_EQ(scheduler.idle(), tokens.size() == 3);
}

// The first slot's long sequences may move only where there is room.
TEST(Scheduler, ASlotThatIsFullGetsNoMoreInTheDrain) {
  constexpr std::uint32_t kMost = 4;
  constexpr std::uint64_t kLong = 1000;
  constexpr std::uint64_t kShort = 200;
  Scheduler scheduler({4, 64, kMost, 1000}, tiny_cost());
  for (std::uint64_t record = 0; record < 100; ++record) {
    ASSERT_TRUE(scheduler.add(work(record, 1, record < kMost ? kLong : kShort)));
  }
  std::vector<std::vector<std::int32_t>> sampled(4);
  std::unordered_map<std::uint64_t, std::uint64_t> tokens;
  std::size_t most = 0;
  for (int round = 0; round < 900; ++round) {
    if (round == 750) scheduler.set_admitting(false);
    for (std::uint32_t slot = 0; slot < 4; ++slot) {
      if (scheduler.in_flight(slot)) {
        for (const SampledToken& token : scheduler.complete(slot, sampled[slot])) {
          if (++tokens[token.record] == (token.record < kMost ? kLong : kShort)) {
            scheduler.finish(token.record);
          }
        }
      }
      const model::StepPlan plan = scheduler.plan(slot);
      sampled[slot].assign(plan.sequences.size(), 1);  // all prompts are one token
      most = std::max(most, plan.sequences.size());
    }
  }
  EXPECT_EQ(most, kMost);
}

TEST(Scheduler, RoundsThatAreNeeded) {
  Scheduler scheduler({1, 64, 64, 100}, tiny_cost());
  EXPECT_EQ(scheduler.rounds_needed(), 128U);  // of a record that is not known yet
  scheduler.set_exhausted();
  EXPECT_EQ(scheduler.rounds_needed(), 0U);
  ASSERT_TRUE(scheduler.add(work(0, 10, 20)));
  EXPECT_EQ(scheduler.rounds_needed(), 20U);  // the next to be admitted
  step(scheduler, 0);
  EXPECT_EQ(scheduler.rounds_needed(), 19U);
  ASSERT_TRUE(scheduler.add(work(1, 640, 20)));
  EXPECT_EQ(scheduler.rounds_needed(), 30U);  // ten of them for the prompt
  Work long_answer = work(2, 10, 1000);
  ASSERT_TRUE(scheduler.add(std::move(long_answer)));
  EXPECT_EQ(scheduler.rounds_needed(), 30U) << "what comes after the next does not count";
}

// What answers were like is what is expected of the next: a limit that none reaches says little.
TEST(Scheduler, RoundsFollowTheAnswersSoFar) {
  Scheduler scheduler({1, 64, 64, 100}, tiny_cost());
  scheduler.set_exhausted();
  ASSERT_TRUE(scheduler.add(work(0, 4, 1000)));
  EXPECT_EQ(scheduler.rounds_needed(), 128U);  // nothing is known yet
  for (int i = 0; i < 10; ++i) step(scheduler, 0);
  EXPECT_EQ(scheduler.rounds_needed(), 118U);
  scheduler.finish(0);
  ASSERT_TRUE(scheduler.add(work(1, 4, 1000)));
  EXPECT_EQ(scheduler.rounds_needed(), 11U);
  for (int i = 0; i < 50; ++i) step(scheduler, 0);
  EXPECT_EQ(scheduler.rounds_needed(), 1U) << "longer than expected: at least one more";
  // What an earlier run generated is done.
  Work resumed = work(2, 4, 1000);
  resumed.generated.assign(8, 1);
  scheduler.finish(1);
  ASSERT_TRUE(scheduler.add(std::move(resumed)));
  EXPECT_EQ(scheduler.rounds_needed(), (10U + 50U) / 2 + 1 - 8);
}

}  // namespace
}  // namespace penstock::jobs
