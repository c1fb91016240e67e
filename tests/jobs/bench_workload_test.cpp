#include "jobs/bench_workload.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <stdexcept>

namespace penstock::jobs {
namespace {

TEST(BenchWorkload, GivesSequencesOfEqualLength) {
  BenchWorkload workload(5, 100, 20, 300);
  workload.begin(steady_now);
  std::set<std::vector<std::int32_t>> prompts;
  for (std::uint64_t record = 0; record < 5; ++record) {
    const std::optional<Work> work = workload.next();
    ASSERT_TRUE(work);
    EXPECT_EQ(work->record, record);
    EXPECT_EQ(work->max_tokens, 20u);
    ASSERT_EQ(work->prompt.size(), 100u);
    for (const std::int32_t token : work->prompt) {
      EXPECT_GE(token, 0);
      EXPECT_LT(token, 300);
    }
    // Not one token again and again.
    EXPECT_GT(std::set<std::int32_t>(work->prompt.begin(), work->prompt.end()).size(), 50u);
    prompts.insert(work->prompt);
  }
  EXPECT_EQ(prompts.size(), 5u) << "equal prompts would share work";
  EXPECT_FALSE(workload.next());
  EXPECT_FALSE(workload.next());
}

TEST(BenchWorkload, TokensStayInAnyVocabulary) {
  for (const std::int64_t vocab : {std::int64_t{1}, std::int64_t{2}, std::int64_t{2147483647}}) {
    BenchWorkload workload(1, 50, 1, vocab);
    workload.begin(steady_now);
    const std::optional<Work> work = workload.next();
    ASSERT_TRUE(work);
    for (const std::int32_t token : work->prompt) {
      EXPECT_GE(token, 0);
      EXPECT_LT(token, vocab);
    }
  }
}

TEST(BenchWorkload, AnswersHaveTheirLength) {
  BenchWorkload workload(2, 3, 4, 10);
  workload.begin(steady_now);
  while (workload.next()) {
  }
  for (int token = 1; token <= 4; ++token) {
    for (const std::uint64_t record : {1u, 0u}) EXPECT_EQ(workload.accept(record, 7), token == 4);
  }
}

TEST(BenchWorkload, RefusesAnswersThatEndBeforeTheLastPromptIsThrough) {
  BenchWorkload workload(2, 3, 2, 10);
  workload.begin(steady_now);
  while (workload.next()) {
  }
  EXPECT_FALSE(workload.accept(0, 7));
  EXPECT_THROW(workload.accept(0, 7), std::runtime_error);
  // A prefill phase: one token each, at any time.
  BenchWorkload prefill(2, 3, 1, 10);
  prefill.begin(steady_now);
  while (prefill.next()) {
  }
  EXPECT_TRUE(prefill.accept(0, 7));
  EXPECT_TRUE(prefill.accept(1, 7));
}

// Three sequences of four tokens, the first two of which begin earlier.
TEST(BenchWorkload, MarksWhenAllDecodeAndWhenTheFirstIsDone) {
  BenchWorkload workload(3, 3, 4, 10);
  workload.begin(steady_now);
  while (workload.next()) {
  }
  const auto step = [&](std::initializer_list<std::uint64_t> records) {
    std::size_t done = 0;
    for (const std::uint64_t record : records) done += workload.accept(record, 0) ? 1 : 0;
    return done;
  };
  step({0, 1});
  EXPECT_FALSE(workload.mark_due());
  step({0, 1, 2});
  EXPECT_TRUE(workload.mark_due());
  EXPECT_FALSE(workload.mark_due()) << "once";
  step({0, 1, 2});
  EXPECT_FALSE(workload.mark_due());
  EXPECT_EQ(step({0, 1, 2}), 2u);
  EXPECT_TRUE(workload.mark_due());
  EXPECT_EQ(step({2}), 1u);
  EXPECT_FALSE(workload.mark_due()) << "only the first";
  EXPECT_GT(workload.prefill_seconds(), 0);
  EXPECT_GT(workload.decode_tokens_per_second(), 0);
}

TEST(BenchWorkload, WithoutASteadyPartThereIsNoRate) {
  BenchWorkload workload(2, 3, 1, 10);
  workload.begin(steady_now);
  while (workload.next()) {
  }
  EXPECT_TRUE(workload.accept(0, 0));
  EXPECT_TRUE(workload.accept(1, 0));
  EXPECT_EQ(workload.decode_tokens_per_second(), 0);
  EXPECT_GT(workload.prefill_seconds(), 0);
}

TEST(BenchWorkload, SequencesThatDoNotFitAreAnError) {
  BenchWorkload workload(1, 3, 1, 10);
  workload.begin(steady_now);
  EXPECT_THAT([&] { workload.reject(0, "too long"); },
              testing::ThrowsMessage<std::runtime_error>(testing::HasSubstr("too long")));
}

}  // namespace
}  // namespace penstock::jobs
