#include "jobs/replay.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "tests/jobs/fake_pipeline.hpp"
#include "tests/jobs/watched_replay.hpp"

// That a replay is what a pipeline would do.
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

}  // namespace
}  // namespace penstock::jobs
