#include "jobs/prediction.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "jobs/replay_sample.hpp"
#include "model/device_model.hpp"
#include "tests/support/llama_shapes.hpp"
#include "tests/support/uniform.hpp"

namespace penstock::jobs {
namespace {

constexpr double kPlenty = 1e9;

// Llama 3.1 8B on two H100, with three slots of 32 sequences.
ReplayPipeline two_stages(std::uint32_t kv_blocks) {
  const auto parts = model::cost_by_device(tests::llama_8b(), io::DType::bf16, io::DType::bf16,
                                           model::device_model("h100-sxm"));
  const LinkModel link{2e-6, 5e10};
  const model::StepCost first(parts, {0, 17, true, false});
  const model::StepCost last(parts, {17, 32, false, true});
  return {{{first, link}, {last, link}}, link, 2.0 * 4096, {3, 2048, 32, kv_blocks}, last};
}

// Answers by Zipf's law from 1 to 1024 tokens: a length is as likely as it is short.
std::vector<ReplayRecord> skewed_lengths(std::size_t records) {
  tests::Uniform uniform;
  std::vector<ReplayRecord> lengths(records);
  for (ReplayRecord& record : lengths) {
    record.prompt_tokens = 20 + static_cast<std::uint32_t>(200 * uniform());
    record.answer_tokens = std::min(1024U, static_cast<std::uint32_t>(std::pow(1025.0, uniform())));
    record.max_tokens = record.answer_tokens;
  }
  return lengths;
}

// A sample's seconds as a part of those that a replay of all records takes.
double sample_to_all(const ReplayPipeline& pipeline, const std::vector<ReplayRecord>& lengths,
                     std::uint64_t records) {
  const Prediction sample = predict(pipeline, {lengths}, {records}, 0).front();
  const Prediction all = predict(pipeline, {lengths}, {records}, kPlenty).front();
  EXPECT_TRUE(sample.is_sample);
  EXPECT_LT(sample.replayed_records, 3 * records / 4);
  EXPECT_FALSE(all.is_sample);
  EXPECT_EQ(all.replayed_records, records);
  return sample.seconds / all.seconds;
}

// The short records are through first; those that run at once are long ones from then on.
TEST(Predict, ASampleOfSkewedLengthsWithLittleKvMemory) {
  EXPECT_NEAR(sample_to_all(two_stages(400), skewed_lengths(6000), 6000), 1, 0.05);
}

TEST(Predict, ASampleOfSkewedLengthsWithPlentyOfKvMemory) {
  EXPECT_NEAR(sample_to_all(two_stages(40000), skewed_lengths(8000), 8000), 1, 0.05);
}

// All prompts come together, and then all answers: the middle has as many of both.
TEST(Predict, ASampleOfRecordsThatAreAlike) {
  EXPECT_NEAR(sample_to_all(two_stages(1500), {{500, 100, 100}}, 3000), 1, 0.03);
}

// 100 records draw their lengths from 97.
TEST(Predict, MoreRecordsTakeLongerThoughFewerAreReplayed) {
  const std::vector<ReplayRecord> lengths = skewed_lengths(97);
  const std::vector<Prediction> predictions =
      predict(two_stages(400), {lengths}, {100, 20'000, 40'000}, 1e5);
  EXPECT_FALSE(predictions[0].is_sample);
  EXPECT_TRUE(predictions[1].is_sample);
  EXPECT_EQ(predictions[1].replayed_records, predictions[2].replayed_records);
  EXPECT_NEAR(predictions[2].seconds / predictions[1].seconds, 2, 0.1);
}

// A window of them, 65536 tokens of answers, is less than what may be replayed.
TEST(Predict, ASampleOfManyWindows) {
  const Prediction prediction =
      predict(two_stages(400), {{{10, 1, 1}}}, {9'000'000'000'000'000'000U}, 1e6).front();
  EXPECT_TRUE(prediction.is_sample);
  EXPECT_LT(prediction.replayed_records, 1'000'000u);
  EXPECT_GT(prediction.seconds, 1e9);
}

TEST(Predict, RecordsAreReplayedInTheOrderOfARun) {
  const ReplayPipeline pipeline = two_stages(400);
  const std::vector<ReplayRecord> lengths = skewed_lengths(500);
  const std::vector<ReplayRecord> ordered =
      in_run_order(draw_records(lengths, 500), pipeline.limits);
  ReplayWorkload workload([&ordered, next = std::size_t{0}]() mutable {
    return next < ordered.size() ? std::optional(ordered[next++]) : std::nullopt;
  });
  const double seconds = replay(pipeline, workload).seconds;
  EXPECT_DOUBLE_EQ(predict(pipeline, {lengths}, {500}, kPlenty).front().seconds, seconds);
  EXPECT_NE(predict(pipeline, {draw_records(lengths, 500), true}, {500}, kPlenty).front().seconds,
            seconds)
      << "or nothing is shown";
  // And as they are, where that is how a run had them.
  EXPECT_DOUBLE_EQ(predict(pipeline, {ordered, true}, {500}, kPlenty).front().seconds, seconds);
}

// What runs at once is at most what there is.
TEST(Predict, SequencesAtOnce) {
  const std::vector<ReplayRecord> lengths = {{100, 100, 100}};
  EXPECT_EQ(predict(two_stages(40), {lengths}, {1000}, kPlenty).front().sequences, 40 * 32 / 200.0);
  EXPECT_EQ(predict(two_stages(4000), {lengths}, {1000}, kPlenty).front().sequences, 96);
  EXPECT_EQ(predict(two_stages(4000), {lengths}, {5}, kPlenty).front().sequences, 5);
  // A long one holds 400 tokens for 300 rounds, a short one 200 for 100.
  EXPECT_EQ(sequences_at_once(two_stages(40).limits, {{100, 300, 300}, {100, 100, 100}}),
            40 * 32 * 400.0 / (300 * 400 + 100 * 200));
}

TEST(DrawRecords, EachAsOftenAsTheOthers) {
  std::vector<ReplayRecord> lengths;
  for (std::uint32_t i = 1; i <= 10; ++i) lengths.push_back({i, 1, 1});
  const auto counts = [&](std::uint64_t records) {
    std::vector<int> of(11);
    for (const ReplayRecord& record : draw_records(lengths, records)) ++of[record.prompt_tokens];
    return std::vector<int>(of.begin() + 1, of.end());
  };
  EXPECT_EQ(counts(10), std::vector<int>(10, 1));
  EXPECT_EQ(counts(30), std::vector<int>(10, 3));
  // Part of them: some of the short and of the long ones.
  const std::vector<int> half = counts(5);
  EXPECT_EQ(std::accumulate(half.begin(), half.begin() + 5, 0), 3);
}

TEST(InRunOrder, LongestFirstWhereThereIsRoomForAll) {
  const std::vector<ReplayRecord> records = {{1, 1, 7}, {2, 9, 9}, {3, 8, 8}, {900, 8, 8}};
  const auto prompts = [&](const std::vector<ReplayRecord>& some) {
    std::vector<std::uint32_t> of;
    for (const ReplayRecord& record : some) of.push_back(record.prompt_tokens);
    return of;
  };
  EXPECT_EQ(prompts(in_run_order(records, two_stages(4000).limits)),
            (std::vector<std::uint32_t>{900, 2, 3, 1}));
}

// Those of a group that begins alike stay together, placed by the longest of them.
TEST(InRunOrder, LinesThatBeginAlikeStayTogether) {
  const std::vector<ReplayRecord> records = {
      {1, 9, 9, 40, 5}, {2, 8, 8, 40, 6}, {3, 7, 7, 40, 5}, {4, 6, 6, 40, 6}};
  std::vector<std::uint32_t> prompts;
  for (const ReplayRecord& record : in_run_order(records, two_stages(4000).limits)) {
    prompts.push_back(record.prompt_tokens);
  }
  EXPECT_EQ(prompts, (std::vector<std::uint32_t>{1, 3, 2, 4}));
}

TEST(InRunOrder, WindowsAreOfOneSize) {
  EXPECT_EQ(window_records(65536), 65536u);
  EXPECT_EQ(window_records(65537), 32769u);
  const std::vector<ReplayRecord> ordered =
      in_run_order(draw_records({{1, 1, 1}, {1, 9, 9}}, 70'000), two_stages(4000).limits);
  ASSERT_EQ(ordered.size(), 70'000u);
  EXPECT_EQ(ordered[0].answer_tokens, 9u);
  EXPECT_EQ(ordered[34'999].answer_tokens, 1u);
  EXPECT_EQ(ordered[35'000].answer_tokens, 9u);
}

}  // namespace
}  // namespace penstock::jobs
