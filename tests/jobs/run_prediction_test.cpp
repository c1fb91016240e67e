#include "jobs/run_prediction.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <utility>

#include "comm/local.hpp"
#include "jobs/pipeline.hpp"
#include "tests/support/llama_shapes.hpp"
#include "tests/support/random_checkpoint.hpp"

namespace penstock::jobs {
namespace {

// Ends the answer of record r at its r % 3 + 1-th token.
class Inner : public Workload {
 public:
  std::optional<Work> next() override {
    if (given == records) return std::nullopt;
    Work work;
    work.record = given++;
    work.prompt.resize(work.record == 4 ? 0 : 10);
    work.max_tokens = 5;
    return work;
  }
  bool accept(std::uint64_t record, std::int32_t) override {
    return ++tokens[record] == record % 3 + 1;
  }
  void reject(std::uint64_t, const std::string&) override { ++rejected; }
  void step_done(const std::vector<double>&) override { ++told; }
  Pace pace(const std::function<double()>&) override { return Pace::drain; }
  void stop_requested(StopRequest) override { ++told; }
  bool mark_due() override { return true; }
  void poll() override { ++told; }
  void begin(std::function<Ledger::Time()>) override { ++told; }

  int told = 0;
  std::uint64_t records = 6;
  std::uint64_t given = 0;
  std::unordered_map<std::uint64_t, std::uint64_t> tokens;
  int rejected = 0;
};

TEST(LengthRecorder, PassesEverythingOn) {
  Inner inner;
  LengthRecorder recorder(inner);
  recorder.begin({});
  recorder.stop_requested(StopRequest::drain);
  recorder.poll();
  recorder.step_done({});
  EXPECT_EQ(inner.told, 4);
  EXPECT_TRUE(recorder.mark_due());
  EXPECT_EQ(recorder.pace({}), Pace::drain);
}

TEST(LengthRecorder, LengthsAsTheyTurnOut) {
  Inner inner;
  LengthRecorder recorder(inner);
  while (recorder.next()) {
  }
  recorder.reject(5, "too long");
  EXPECT_EQ(inner.rejected, 1);
  EXPECT_FALSE(recorder.all_finished());
  for (const std::uint64_t record : {0, 1, 2, 3, 1, 2, 2}) recorder.accept(record, 0);
  EXPECT_TRUE(recorder.all_finished());
  EXPECT_EQ(recorder.finished(), 4u);
  std::vector<std::uint32_t> answers;
  for (const ReplayRecord& record : recorder.lengths()) {
    EXPECT_EQ(record.prompt_tokens, 10u);
    EXPECT_EQ(record.max_tokens, 5u);
    answers.push_back(record.answer_tokens);
  }
  EXPECT_EQ(answers, (std::vector<std::uint32_t>{1, 2, 3, 1}));  // as they began
}

TEST(LengthRecorder, OfManyAnEvenSample) {
  Inner inner;
  inner.records = 300'000;
  LengthRecorder recorder(inner);
  std::uint64_t tokens = 0;
  while (const auto work = recorder.next()) {
    if (work->prompt.empty()) continue;
    ++tokens;
    while (!recorder.accept(work->record, 0)) ++tokens;
  }
  EXPECT_EQ(recorder.finished(), 299'999u);
  EXPECT_LT(recorder.lengths().size(), 65536u);
  EXPECT_GT(recorder.lengths().size(), 65536u / 4);
  double sum = 0;
  for (const ReplayRecord& record : recorder.lengths()) sum += record.answer_tokens;
  EXPECT_NEAR(sum / static_cast<double>(recorder.lengths().size()),
              static_cast<double>(tokens) / 299'999, 0.01);
}

TEST(PredictedRun, IsShownBesideTheMeasuredOne) {
  Prediction prediction;
  prediction.seconds = 12;
  EXPECT_EQ(format_predicted_run(prediction, 15), "predicted 12 s, measured 15 s (+25.0 %)\n");
  prediction.is_sample = true;
  prediction.replayed_records = 2048;
  EXPECT_EQ(format_predicted_run(prediction, 9),
            "predicted 12 s, measured 9.0 s (-25.0 %), by a sample of 2,048 records\n");
}

// Three stages on two nodes, on threads.
class PredictRun : public testing::Test {
 protected:
  PredictRun() {
    choice_.machine.emplace();
    choice_.machine->device = model::device_model("a100-80");
    choice_.machine->devices_per_node = 2;
    choice_.machine->in_node = {1e-4, 1e7};
    choice_.machine->between_nodes = {5e-4, 1e6};
    choice_.machine->control = {2e-4, 0};
    options_.slots = 4;
    options_.max_step_tokens = 64;
    options_.max_sequences = 3;
    options_.kv_blocks = 100;
  }

  std::unique_ptr<model::Stage> stage(std::size_t member) const {
    model::StageOptions of_stage;
    of_stage.slots = options_.slots;
    return model::make_virtual_stage(tests::tiny_llama(), ranges_[member], of_stage,
                                     choice_.machine->device);
  }
  // Seconds by the driver's clock.
  double rehearse(Workload& workload) const {
    std::vector<comm::Endpoint> endpoints = comm::local_endpoints(static_cast<int>(ranges_.size()));
    double seconds = 0;
    const auto work = [&](std::size_t member) {
      PipelineOptions options = options_;
      const auto rank = static_cast<int>(member);
      options.clock = StageClock(StageClock::Kind::rehearsal, choice_.machine->edge(rank, rank + 1),
                                 choice_.machine->control);
      const auto mine = stage(member);
      mine->allocate_kv(options.kv_blocks);
      if (member > 0) {
        run_stage(endpoints[member], *mine, options);
      } else {
        seconds = run_driver(endpoints[0], *mine, options, costs().front(), workload).seconds;
      }
    };
    std::vector<std::jthread> threads;
    for (std::size_t member = 1; member < ranges_.size(); ++member) {
      threads.emplace_back(work, member);
    }
    work(0);
    threads.clear();
    return seconds;
  }
  std::vector<model::StepCost> costs() const {
    const auto parts = model::cost_by_device(tests::tiny_llama(), io::DType::bf16, io::DType::bf16,
                                             choice_.machine->device);
    std::vector<model::StepCost> costs;
    for (const model::StageRange& range : ranges_) costs.emplace_back(parts, range);
    return costs;
  }
  StageSetup setup() const {
    StageCut cut;
    cut.ranges = ranges_;
    cut.costs = costs();
    cut.in_seconds = true;
    return {.checkpoint = io::CheckpointReader(checkpoint_.path()),
            .config = tests::tiny_llama(),
            .dtype = io::DType::bf16,
            .kv_dtype = io::DType::bf16,
            .stage = stage(0),
            .options = options_,
            .cost = cut.costs.front(),
            .cut = cut,
            .device = {},
            .links = {},
            .reports = {},
            .warnings = {},
            .rehearsal = {}};
  }

  const tests::RandomCheckpoint checkpoint_{tests::tiny_llama(), io::DType::bf16, "predict_run"};
  const std::vector<model::StageRange> ranges_ = {
      {0, 1, true, false}, {1, 3, false, false}, {3, 4, false, true}};
  PipelineChoice choice_;
  PipelineOptions options_;
};

// Records of such lengths, longest first, as a replay takes them from those that it knows.
ReplayWorkload longest_first(std::uint32_t records) {
  return ReplayWorkload(
      [records, next = std::uint32_t{0}]() mutable -> std::optional<ReplayRecord> {
        if (next == records) return std::nullopt;
        const std::uint32_t left = records - next++;
        return ReplayRecord{1 + left * 7 % 11, left, left};
      });
}

TEST_F(PredictRun, OfAllRecordsIsTheRehearsalsOwnTime) {
  ReplayWorkload records = longest_first(30);  // of which 12 run at once
  LengthRecorder recorder(records);
  const double seconds = rehearse(recorder);
  const std::optional<Prediction> predicted = predict_run(setup(), choice_, recorder);
  ASSERT_TRUE(predicted);
  EXPECT_FALSE(predicted->is_sample);
  EXPECT_EQ(predicted->replayed_records, 30u);
  EXPECT_DOUBLE_EQ(predicted->seconds, seconds);
}

TEST_F(PredictRun, BetweenRealRanksAStepTakesTheTripThatWasMeasured) {
  ReplayWorkload one([given = false]() mutable {
    return std::exchange(given, true) ? std::nullopt : std::optional(ReplayRecord{1, 20, 20});
  });
  LengthRecorder recorder(one);
  rehearse(recorder);
  StageSetup known = setup();
  choice_.machine.reset();
  const std::optional<Prediction> predicted = predict_run(known, choice_, recorder);
  ASSERT_TRUE(predicted);
  double seconds = 0;
  for (std::uint64_t position = 1; position <= 20; ++position) {
    for (const model::StepCost& cost : known.cut.costs) {
      seconds += cost.seconds({1, 1, position, position});
    }
  }
  EXPECT_NEAR(predicted->seconds, seconds, 1e-6);  // 60 times, each rounded to nanoseconds
  known.trip_seconds = 0.5;
  EXPECT_NEAR(predict_run(known, choice_, recorder)->seconds, seconds + 20 * 0.5, 1e-6);
}

TEST_F(PredictRun, NothingIsPredictedOfWhatIsNotKnown) {
  const StageSetup known = setup();
  ReplayWorkload records = longest_first(5);
  LengthRecorder recorder(records);
  EXPECT_FALSE(predict_run(known, choice_, recorder));  // nothing is finished
  rehearse(recorder);
  EXPECT_TRUE(predict_run(known, choice_, recorder));
  StageSetup ratios = setup();
  ratios.cut.in_seconds = false;
  EXPECT_FALSE(predict_run(ratios, choice_, recorder));
  // One more has begun, and the run was stopped.
  ReplayWorkload more = longest_first(2);
  LengthRecorder stopped(more);
  const auto first = stopped.next();
  stopped.next();
  while (!stopped.accept(first->record, 0)) {
  }
  ASSERT_EQ(stopped.finished(), 1u);
  EXPECT_FALSE(predict_run(known, choice_, stopped));
}

}  // namespace
}  // namespace penstock::jobs
