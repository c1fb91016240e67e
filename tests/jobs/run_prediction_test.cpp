#include "jobs/run_prediction.hpp"

#include <gtest/gtest.h>

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
  EXPECT_EQ(answers, (std::vector<std::uint32_t>{1, 1, 2, 3}));  // as they ended
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

// Each layer of a step takes a second.
class Seconds : public model::PartCost {
 public:
  double step() const override { return 0; }
  double embedding(const model::StepShape&) const override { return 0; }
  double layer(const model::StepShape&) const override { return 1; }
  double head(const model::StepShape&) const override { return 0; }
};

TEST(PredictedRun, ATripTakesWhatWasMeasured) {
  const model::ModelConfig config;
  StageSetup setup{io::CheckpointReader(PENSTOCK_SOURCE_DIR "/jobs/embedded/austen-1m.h5"),
                   config,
                   io::DType::bf16,
                   io::DType::bf16,
                   100,
                   model::make_idle_stage(48),
                   {},
                   {std::make_shared<Seconds>(), {1, 3, false, true}},
                   {},
                   {},
                   {},
                   0.5,
                   {},
                   {},
                   0,
                   ""};
  setup.options.kv_blocks = 10;
  setup.cut.in_seconds = true;
  setup.cut.ranges = {{0, 1, true, false}, {1, 2, false, false}, {2, 4, false, true}};
  for (const model::StageRange& range : setup.cut.ranges) {
    setup.cut.costs.emplace_back(std::make_shared<Seconds>(), range);
  }
  Inner inner;
  inner.records = 3;
  LengthRecorder recorder(inner);
  while (recorder.next()) {
  }
  // Answers of 1, 2 and 3 tokens in one slot: three steps of 1 + 1 + 2 seconds, and the trips.
  for (const std::uint64_t record : {0, 1, 2, 1, 2, 2}) recorder.accept(record, 0);
  const auto with_trip = predict_run(setup, {}, recorder);
  ASSERT_TRUE(with_trip);
  EXPECT_NEAR(with_trip->seconds, 3 * (4 + 0.5), 1e-6);
  setup.trip_seconds = 0;
  EXPECT_NEAR(predict_run(setup, {}, recorder)->seconds, 3 * 4, 1e-6);
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

}  // namespace
}  // namespace penstock::jobs
