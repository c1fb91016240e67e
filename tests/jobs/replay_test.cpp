#include "jobs/replay.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "model/device_model.hpp"
#include "tests/jobs/fake_pipeline.hpp"
#include "tests/support/llama_shapes.hpp"

// That a replay is what a pipeline would do, and that the schedule is a good one: the second half
// are regression tests of the scheduler at sizes that no test machine has.
namespace penstock::jobs {
namespace {

// Takes a modelled time for each step, as a stage on a virtual device does.
class TimedStage : public FakeStage {
 public:
  TimedStage(int stage, int stages, model::StepCost cost)
      : FakeStage(stage, stages), cost_(std::move(cost)) {}
  void forward(const model::StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override {
    FakeStage::forward(plan, in, out, progress);
    seconds_ = cost_.seconds(model::shape_of(plan));
  }
  std::optional<double> modelled_seconds() const override { return seconds_; }

 private:
  model::StepCost cost_;
  std::optional<double> seconds_;
};

std::shared_ptr<const model::PartCost> h100_cost() {
  return model::cost_by_device(tests::llama_70b(), io::DType::bf16, io::DType::bf16,
                               model::device_model("h100-sxm"));
}

// Llama-3.1-70B on H100s over links of 5 us and 40 GB/s. The KV memory is what is left of them
// from four stages on.
ReplayPipeline h100s(int stages) {
  const auto parts = h100_cost();
  const auto ranges = model::cut_stages(tests::llama_70b(), stages, io::DType::bf16);
  const auto kv_blocks = static_cast<std::uint32_t>(7000 * stages - 14000);
  const LinkModel link{5e-6, 40e9};
  ReplayPipeline pipeline{{},
                          link,
                          2.0 * 8192,
                          {static_cast<std::uint32_t>(stages) + 1, 2048, 256, kv_blocks},
                          model::StepCost(parts, ranges.back())};
  const model::StepShape decode{64, 64, 64 * 512, 64 * 512};
  for (const model::StageRange& range : ranges) {
    const model::StepCost cost(parts, range);
    if (cost.seconds(decode) > pipeline.planning_cost.seconds(decode)) {
      pipeline.planning_cost = cost;
    }
    pipeline.stages.push_back({cost, link});
  }
  return pipeline;
}

std::function<std::optional<ReplayRecord>()> records(
    std::uint64_t count, std::function<ReplayRecord(std::uint64_t)> record) {
  return [=, next = std::uint64_t{0}]() mutable -> std::optional<ReplayRecord> {
    if (next == count) return std::nullopt;
    return record(next++);
  };
}

// What is remembered of a step.
struct Seen {
  std::uint32_t slot = 0;
  std::uint64_t rows = 0;
  std::uint64_t sampled = 0;
  double seconds = 0;    // of its slowest stage
  double predicted = 0;  // by the scheduler's own cost
  double back = 0;
};

struct Watched {
  PipelineTotals totals;
  std::vector<Seen> steps;

  // Steps that were back between two shares of all steps.
  std::span<const Seen> between(double begin, double end) const {
    const auto at = [&](double share) {
      return static_cast<std::size_t>(share * static_cast<double>(steps.size()));
    };
    return std::span(steps).subspan(at(begin), at(end) - at(begin));
  }
  // Share of that time in which the slowest stage computed.
  double fill(double begin, double end) const {
    const std::span<const Seen> some = between(begin, end);
    double busy = 0;
    for (const Seen& step : some) busy += step.seconds;
    return busy / (some.back().back - some.front().back + some.front().seconds);
  }
};

Watched watch(const ReplayPipeline& pipeline, std::function<std::optional<ReplayRecord>()> next) {
  Watched watched;
  ReplayWorkload workload(std::move(next));
  watched.totals = replay(pipeline, workload, [&](const ReplayStep& step) {
    Seen seen{step.plan.slot,
              step.shape.rows,
              step.shape.sampled,
              0,
              pipeline.planning_cost.seconds(step.shape),
              std::chrono::duration<double>(step.back).count()};
    for (std::size_t i = 0; i < step.begins.size(); ++i) {
      seen.seconds = std::max(seen.seconds,
                              std::chrono::duration<double>(step.ends[i] - step.begins[i]).count());
    }
    watched.steps.push_back(seen);
  });
  EXPECT_EQ(workload.rejected(), 0u);
  return watched;
}

TEST(Replay, OneStepByHand) {
  // Two stages, one record of three tokens in and one out: plan 10 us, activations 3 x 2 bytes at
  // 1 MB/s and 20 us, tokens 10 us.
  const auto parts = h100_cost();
  const model::StepCost first(parts, {0, 1, true, false});
  const model::StepCost last(parts, {1, 2, false, true});
  const ReplayPipeline pipeline{
      {{first, {20e-6, 1e6}}, {last, {}}}, {10e-6, 0}, 2, {1, 16, 16, 4}, first};
  ReplayWorkload workload(records(1, [](std::uint64_t) { return ReplayRecord{3, 1, 1}; }));
  const PipelineTotals totals = replay(pipeline, workload);
  const model::StepShape shape{3, 1, 6, 3};
  const double before = first.seconds(shape) + 26e-6;
  EXPECT_NEAR(totals.seconds, before + last.seconds(shape) + 10e-6, 5e-9);
  EXPECT_EQ(totals.steps, 1u);
  EXPECT_EQ(totals.prompt_tokens, 3u);
  EXPECT_EQ(totals.generated_tokens, 1u);
  const LedgerTotals& driver = totals.stages.at(0).totals;
  EXPECT_NEAR(driver[Share::compute], first.seconds(shape), 2e-9);
  EXPECT_NEAR(driver[Share::wait_downstream], 36e-6 + last.seconds(shape), 5e-9);
  const LedgerTotals& stage = totals.stages.at(1).totals;
  EXPECT_NEAR(stage[Share::compute], last.seconds(shape), 2e-9);
  EXPECT_NEAR(stage[Share::starved], 10e-6, 2e-9);
  EXPECT_NEAR(stage[Share::wait_upstream], before - 10e-6, 5e-9);
}

void expect_equal(const LedgerTotals& a, const LedgerTotals& b) {
  for (std::size_t i = 0; i < kShares; ++i) {
    EXPECT_EQ(a.seconds[i], b.seconds[i]) << to_string(static_cast<Share>(i));
  }
}

// The real driver and the real stages in a rehearsal, on threads: the same to the nanosecond.
TEST(Replay, IsWhatTheRehearsalOfAPipelineSays) {
  std::mt19937 random(3);
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  std::uint64_t evictions = 0;
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    const int stages = pick(1, 4);
    const LinkModel link{pick(0, 200) * 1e-6, pick(0, 1) * 1e6};
    const LinkModel control{pick(0, 100) * 1e-6, 0};
    Pipeline pipeline{stages, options_of(static_cast<std::uint32_t>(pick(1, 6)),
                                         static_cast<std::uint32_t>(pick(16, 60)),
                                         static_cast<std::uint32_t>(pick(5, 10)))};
    pipeline.options.clock = StageClock(StageClock::Kind::rehearsal, link, control);
    const auto parts = h100_cost();
    ReplayPipeline paper{{},
                         control,
                         sizeof(std::uint64_t),
                         {pipeline.options.slots, pipeline.options.max_step_tokens,
                          pipeline.options.max_sequences, pipeline.options.kv_blocks},
                         any_cost()};
    for (int i = 0; i < stages; ++i) {
      paper.stages.push_back(
          {model::StepCost(parts, {i * 3, i * 3 + pick(1, 3), i == 0, i + 1 == stages}), link});
    }
    pipeline.make_stage = [&](int member, comm::Endpoint&) {
      return std::make_unique<TimedStage>(member, stages,
                                          paper.stages[static_cast<std::size_t>(member)].cost);
    };
    FakeWorkload real(30, 90);
    FakeWorkload replayed(30, 90);
    real.mark_every = replayed.mark_every = static_cast<std::uint64_t>(pick(1, 30));
    const PipelineTotals a = pipeline.run(real);
    pipeline.expect_no_failures();
    const PipelineTotals b = replay(paper, replayed);
    EXPECT_EQ(a.seconds, b.seconds);
    EXPECT_GT(b.seconds, 0);
    EXPECT_EQ(a.steps, b.steps);
    EXPECT_EQ(a.prompt_tokens, b.prompt_tokens);
    EXPECT_EQ(a.generated_tokens, b.generated_tokens);
    EXPECT_EQ(a.evictions, b.evictions);
    EXPECT_EQ(a.work.rows, b.work.rows);
    EXPECT_EQ(a.work.cached, b.work.cached);
    EXPECT_GT(b.work.sampled, 0u);
    EXPECT_EQ(real.rejected, replayed.rejected);
    ASSERT_EQ(a.stages.size(), b.stages.size());
    for (std::size_t i = 0; i < a.stages.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "stage " << i);
      expect_equal(a.stages[i].totals, b.stages[i].totals);
      ASSERT_EQ(a.stages[i].marks.size(), b.stages[i].marks.size());
      for (std::size_t m = 0; m < a.stages[i].marks.size(); ++m) {
        expect_equal(a.stages[i].marks[m], b.stages[i].marks[m]);
      }
    }
    evictions += b.evictions;
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_GT(evictions, 10u) << "the rounds were meant to run out of memory";
}

TEST(Replay, StopsAndDrainsByTheWorkloadsPace) {
  class Paced : public ReplayWorkload {
   public:
    using ReplayWorkload::ReplayWorkload;
    void begin(std::function<Ledger::Time()> now) override { now_ = std::move(now); }
    Pace pace(const std::function<double()>&) override {
      return now_() < std::chrono::seconds(2) ? Pace::admit : Pace::drain;
    }

   private:
    std::function<Ledger::Time()> now_;
  };
  Paced workload(records(100000, [](std::uint64_t) { return ReplayRecord{100, 50, 50}; }));
  const PipelineTotals totals = replay(h100s(4), workload);
  EXPECT_GT(totals.seconds, 2);
  EXPECT_LT(totals.seconds, 6);
  EXPECT_EQ(totals.generated_tokens % 50, 0u) << "what was begun is finished";
}

TEST(Replay, ReplicasAreIndependent) {
  const ReplayPipeline pipeline = h100s(64);
  const auto share = [](std::uint32_t replica) {
    return std::make_unique<ReplayWorkload>(records(replica % 2 == 0 ? 20 : 10, [](std::uint64_t) {
      return ReplayRecord{50, 3, 3};
    }));
  };
  const std::vector<PipelineTotals> totals = replay_replicas(pipeline, 512, 2, share);
  ASSERT_EQ(totals.size(), 512u);
  for (std::uint32_t replica = 0; replica < totals.size(); ++replica) {
    EXPECT_EQ(totals[replica].generated_tokens, replica % 2 == 0 ? 60u : 30u);
    EXPECT_EQ(totals[replica].seconds, totals[replica % 2].seconds);
  }
  EXPECT_THROW(replay_replicas(pipeline, 4, 2,
                               [&](std::uint32_t replica) -> std::unique_ptr<Workload> {
                                 if (replica == 2) throw std::runtime_error("no such replica");
                                 return share(replica);
                               }),
               std::runtime_error);
}

// ---- the schedule ----

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
  const std::uint64_t count = 200000;
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
