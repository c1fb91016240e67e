// The pipeline with virtual stages on threads: time as it must be by hand.

#include <gtest/gtest.h>

#include <thread>

#include "comm/local.hpp"
#include "jobs/pipeline.hpp"
#include "jobs/virtual_machine.hpp"
#include "model/device_model.hpp"
#include "model/step_cost.hpp"

namespace penstock::jobs {
namespace {

model::ModelConfig config() {
  model::ModelConfig c;
  c.hidden_size = 1024;
  c.intermediate_size = 4096;
  c.num_layers = 6;
  c.num_heads = 8;
  c.num_kv_heads = 2;
  c.head_dim = 128;
  c.vocab_size = 1000;
  c.max_position = 4096;
  return c;
}

// Records of one token, each with an answer of `tokens`.
class Answers : public Workload {
 public:
  Answers(std::uint64_t records, std::uint32_t tokens) : records_(records), tokens_(tokens) {}
  std::optional<Work> next() override {
    if (given_ == records_) return std::nullopt;
    Work work;
    work.record = given_++;
    work.prompt = {1};
    work.max_tokens = tokens_;
    return work;
  }
  bool accept(std::uint64_t record, std::int32_t token) override {
    answers[record].push_back(token);
    return answers[record].size() == tokens_;
  }
  void reject(std::uint64_t, const std::string& reason) override { FAIL() << reason; }
  void step_done(const std::vector<double>&) override {}

  std::map<std::uint64_t, std::vector<std::int32_t>> answers;

 private:
  std::uint64_t records_;
  std::uint32_t tokens_;
  std::uint64_t given_ = 0;
};

struct Rehearsal {
  std::vector<model::StageRange> ranges;
  LinkModel link{0.001, 1e6};
  LinkModel control{0.002, 0};
  std::uint32_t slots = 1;
  StageClock::Kind kind = StageClock::Kind::rehearsal;

  std::shared_ptr<const model::PartCost> parts() const {
    return model::cost_by_device(config(), io::DType::bf16, io::DType::bf16,
                                 model::device_model("a100-80"));
  }
  PipelineTotals run(Workload& workload) const {
    std::vector<comm::Endpoint> endpoints = comm::local_endpoints(static_cast<int>(ranges.size()));
    PipelineTotals totals;
    const auto work = [&](std::size_t member) {
      PipelineOptions options;
      options.slots = slots;
      options.kv_blocks = 1000;
      options.clock = StageClock(kind, link, control);
      model::StageOptions of_stage;
      of_stage.slots = slots;
      const auto stage = model::make_virtual_stage(config(), ranges[member], of_stage,
                                                   model::device_model("a100-80"));
      stage->allocate_kv(options.kv_blocks);
      if (member == 0) {
        totals = run_driver(endpoints[0], *stage, options, {parts(), ranges[0]}, workload);
      } else {
        run_stage(endpoints[member], *stage, options);
      }
    };
    std::vector<std::jthread> threads;
    for (std::size_t member = 1; member < ranges.size(); ++member) {
      threads.emplace_back(work, member);
    }
    work(0);
    threads.clear();
    return totals;
  }
};

TEST(Rehearsal, OneRecordGoesThroughStagesAndLinksForEachToken) {
  Rehearsal rehearsal;
  rehearsal.ranges = {{0, 2, true, false}, {2, 6, false, true}};
  Answers workload(1, 20);
  const PipelineTotals totals = rehearsal.run(workload);
  const auto parts = rehearsal.parts();
  double seconds = 0;
  for (std::uint64_t position = 1; position <= 20; ++position) {
    const model::StepShape shape{1, 1, position, position};
    seconds += model::StepCost(parts, rehearsal.ranges[0]).seconds(shape) + 0.001 + 2 * 1024 / 1e6 +
               model::StepCost(parts, rehearsal.ranges[1]).seconds(shape) + 0.002;
  }
  EXPECT_NEAR(totals.seconds, seconds, 1e-6);
  EXPECT_EQ(totals.steps, 20u);
  // The last stage waits for all but its own work.
  ASSERT_EQ(totals.stages.size(), 2u);
  double computed = 0;
  for (std::uint64_t position = 1; position <= 20; ++position) {
    computed += model::StepCost(parts, rehearsal.ranges[1]).seconds({1, 1, position, position});
  }
  EXPECT_NEAR(totals.stages[1].totals[Share::compute], computed, 1e-6);
}

// Two slots of one record each on two equal stages without links: each stage computes while the
// other does, so two answers take as long as one and one stage's step.
TEST(Rehearsal, TwoSlotsKeepTwoStagesBusy) {
  Rehearsal rehearsal;
  rehearsal.ranges = {{0, 3, true, false}, {3, 6, false, true}};
  rehearsal.link = {};
  rehearsal.control = {};
  rehearsal.slots = 2;
  Answers workload(2, 50);
  const PipelineTotals totals = rehearsal.run(workload);
  const auto parts = rehearsal.parts();
  double longest = 0;
  for (std::uint64_t position = 1; position <= 50; ++position) {
    const model::StepShape shape{1, 1, position, position};
    longest += 2 * std::max(model::StepCost(parts, rehearsal.ranges[0]).seconds(shape),
                            model::StepCost(parts, rehearsal.ranges[1]).seconds(shape));
  }
  const model::StepShape first{1, 1, 1, 1};
  EXPECT_GE(totals.seconds, longest);
  EXPECT_LE(totals.seconds, longest + model::StepCost(parts, rehearsal.ranges[0]).seconds(first));
}

TEST(Rehearsal, AnswersAndTimeAreTheSameEachTime) {
  Rehearsal rehearsal;
  rehearsal.ranges = {{0, 2, true, false}, {2, 4, false, false}, {4, 6, false, true}};
  rehearsal.slots = 4;
  Answers first(30, 17), again(30, 17);
  const PipelineTotals a = rehearsal.run(first);
  const PipelineTotals b = rehearsal.run(again);
  EXPECT_DOUBLE_EQ(a.seconds, b.seconds);
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(first.answers, again.answers);
  // On one stage there are other slots, steps and times.
  Rehearsal alone;
  alone.ranges = {{0, 6, true, true}};
  Answers whole(30, 17);
  alone.run(whole);
  EXPECT_EQ(whole.answers, first.answers);
}

TEST(Rehearsal, RealtimeTakesItsTime) {
  Rehearsal rehearsal;
  rehearsal.ranges = {{0, 2, true, false}, {2, 6, false, true}};
  rehearsal.kind = StageClock::Kind::realtime;
  Answers workload(1, 10);
  const Ledger::Time begin = steady_now();
  const PipelineTotals totals = rehearsal.run(workload);
  // Links alone: 10 times 1 ms, 2048 bytes at 1 MB/s, and 2 ms.
  EXPECT_GE(totals.seconds, 0.05);
  EXPECT_GE(steady_now() - begin, std::chrono::milliseconds(50));
}

TEST(SlotsFor, ByHand) {
  // A step takes 1 s a layer.
  class Seconds : public model::PartCost {
   public:
    double step() const override { return 0; }
    double embedding(const model::StepShape&) const override { return 0; }
    double layer(const model::StepShape&) const override { return 1; }
    double head(const model::StepShape&) const override { return 0.5; }
  };
  VirtualMachine machine;
  machine.devices_per_node = 2;
  machine.in_node = {0.1, 1e3};
  machine.between_nodes = {0.2, 1e3};
  machine.control = {0.3, 0};
  const std::vector<model::StageRange> three = {
      {0, 2, true, false}, {2, 4, false, false}, {4, 5, false, true}};
  // 100 rows of 10 bytes take 1 s on each edge: 1.1 + 1.2 + 0.3 s in steps of 2 s.
  EXPECT_EQ(slots_for(machine, Seconds(), three, 0, 10, 100), 3u + 2);
  // From rank 1 on both edges: 1.2 + 1.1 + 0.3. Without bytes 0.3 + 0.3.
  EXPECT_EQ(slots_for(machine, Seconds(), three, 1, 10, 100), 3u + 2);
  EXPECT_EQ(slots_for(machine, Seconds(), three, 0, 0, 100), 3u + 1);
  EXPECT_EQ(slots_for(machine, Seconds(), three, 0, 20, 100), 3u + 3);  // 4.6 s
  EXPECT_EQ(slots_for(machine, Seconds(), three, 0, 100, 100), 7u);     // 3 + 11, but for the bound
  EXPECT_EQ(slots_for(machine, Seconds(), {{0, 5, true, true}}, 0, 10, 100), 1u);
}

}  // namespace
}  // namespace penstock::jobs
