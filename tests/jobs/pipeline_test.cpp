// The pipeline loop with stages that have no weights (fake_pipeline.hpp). Endpoints are those of
// threads.

#include "jobs/pipeline.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "comm/error.hpp"
#include "comm/local.hpp"
#include "jobs/launch.hpp"
#include "tests/jobs/fake_pipeline.hpp"

namespace penstock::jobs {
namespace {

using testing::HasSubstr;

TEST(Pipeline, TokensAreEqualForAllLayouts) {
  constexpr std::uint64_t kRecords = 60;
  constexpr std::uint64_t kLongest = 90;  // and 20 more: 4 blocks
  FakeWorkload reference(kRecords, kLongest);
  Pipeline simple{1, options_of(1, 512, 1000)};
  simple.run(reference);
  simple.expect_no_failures();
  ASSERT_EQ(reference.answers.size(), kRecords);
  std::uint64_t tokens = 0;
  std::uint64_t prompts = 0;
  for (const auto& [record, answer] : reference.answers) {
    EXPECT_EQ(answer.size(), FakeWorkload::answer_tokens(record));
    tokens += answer.size();
    prompts += reference.prompt_tokens(record);
  }

  std::uint64_t evictions = 0;
  for (const int stages : {1, 2, 3, 4}) {
    for (const std::uint32_t slots : {1U, 2U, 5U}) {
      for (const std::uint32_t step_tokens : {7U, 64U, 512U}) {
        for (const std::uint32_t blocks : {4U, 9U, 1000U}) {
          SCOPED_TRACE(testing::Message()
                       << stages << " stages, " << slots << " slots, " << step_tokens
                       << " tokens a step, " << blocks << " blocks");
          FakeWorkload workload(kRecords, kLongest);
          Pipeline pipeline{stages, options_of(slots, step_tokens, blocks)};
          const PipelineTotals totals = pipeline.run(workload);
          pipeline.expect_no_failures();
          ASSERT_EQ(workload.answers, reference.answers);
          EXPECT_THAT(workload.rejected, testing::IsEmpty());
          EXPECT_EQ(workload.stages_seen, static_cast<std::size_t>(stages));
          EXPECT_EQ(totals.generated_tokens, tokens);
          EXPECT_EQ(totals.stages.size(), static_cast<std::size_t>(stages));
          evictions += totals.evictions;
          if (blocks == 1000) {
            EXPECT_EQ(totals.evictions, 0U);
            EXPECT_EQ(totals.prompt_tokens, prompts);
          } else {
            EXPECT_GE(totals.prompt_tokens, prompts);
          }
        }
      }
    }
  }
  EXPECT_GT(evictions, 10U);
}

TEST(Pipeline, EmptyDatasetEnds) {
  for (const int stages : {1, 3}) {
    FakeWorkload workload(0, 10);
    Pipeline pipeline{stages, options_of(2, 64, 10)};
    const PipelineTotals totals = pipeline.run(workload);
    pipeline.expect_no_failures();
    EXPECT_EQ(totals.steps, 0U);
  }
}

TEST(Pipeline, RecordsThatCannotFitAreRejectedAndTheOthersAnswered) {
  FakeWorkload reference(40, 90);
  Pipeline{1, options_of(1, 512, 1000)}.run(reference);
  for (const int stages : {1, 3}) {
    FakeWorkload workload(40, 90);
    // Two blocks: 64 tokens.
    Pipeline pipeline{stages, options_of(3, 50, 2)};
    pipeline.run(workload);
    pipeline.expect_no_failures();
    std::size_t prompts = 0;
    std::size_t growing = 0;
    for (std::uint64_t record = 0; record < 40; ++record) {
      SCOPED_TRACE(record);
      const std::size_t prompt = workload.prompt_tokens(record);
      // The last token of an answer needs no place in the cache.
      const std::size_t needed = prompt + FakeWorkload::answer_tokens(record) - 1;
      if (needed <= 64 && prompt < 64) {
        EXPECT_EQ(workload.answers[record], reference.answers[record]);
        EXPECT_FALSE(workload.rejected.contains(record));
        continue;
      }
      ASSERT_TRUE(workload.rejected.contains(record));
      EXPECT_THAT(workload.rejected[record], HasSubstr("64"));
      EXPECT_THAT(workload.rejected[record], HasSubstr("--kv-memory"));
      ++(prompt >= 64 ? prompts : growing);
    }
    EXPECT_GT(prompts, 0U);
    EXPECT_GT(growing, 0U);
  }
}

TEST(Pipeline, StageThatThrowsEndsAllThreads) {
  for (const int stages : {1, 2, 4}) {
    for (int broken = 0; broken < stages; ++broken) {
      for (const std::uint64_t step : {0U, 1U, 9U}) {
        SCOPED_TRACE(testing::Message()
                     << "stage " << broken << " of " << stages << ", step " << step);
        FakeWorkload workload(60, 90);
        Pipeline pipeline{stages, options_of(3, 64, 50)};
        pipeline.broken_stage = broken;
        pipeline.broken_step = step;
        const auto start = std::chrono::steady_clock::now();
        pipeline.run(workload);
        // The waits of the others end because it left, not by their time-out.
        EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(15));
        for (int member = 0; member < stages; ++member) {
          const std::string& failure = pipeline.failures[static_cast<std::size_t>(member)];
          if (member == broken) {
            EXPECT_EQ(failure, "the fake stage broke");
          } else {
            EXPECT_THAT(failure, HasSubstr("has left"));
          }
        }
      }
    }
  }
}

TEST(Pipeline, MarksAreNotedByAllStagesAndTotalsAreTheWallTime) {
  for (const int stages : {1, 2, 4}) {
    SCOPED_TRACE(stages);
    FakeWorkload workload(40, 60);
    workload.mark_every = 7;
    Pipeline pipeline{stages, options_of(3, 64, 100)};
    pipeline.delay_us = 500;
    const auto start = std::chrono::steady_clock::now();
    const PipelineTotals totals = pipeline.run(workload);
    const double wall =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    pipeline.expect_no_failures();
    ASSERT_GT(totals.steps, 14U);
    for (const StageTimes& times : totals.stages) {
      EXPECT_EQ(times.marks.size(), totals.steps / 7);
      double before = 0;
      for (const LedgerTotals& mark : times.marks) {
        EXPECT_GE(mark.total(), before);
        before = mark.total();
      }
      EXPECT_GE(times.totals.total(), before);
      EXPECT_LE(times.totals.total(), wall);
      EXPECT_GT(times.totals[Share::compute], 0);
      for (const double seconds : times.totals.seconds) EXPECT_GE(seconds, 0);
    }
    // The driver's ledger runs from before the first step to the farewell of the last stage: all
    // of its time but what making and destroying it takes.
    EXPECT_LE(totals.stages[0].totals.total(), pipeline.driver_seconds);
    EXPECT_GT(totals.stages[0].totals.total(), 0.8 * pipeline.driver_seconds);
  }
}

TEST(Pipeline, NeverDeadlocksWhateverTheOrder) {
  constexpr std::uint64_t kRecords = 10;
  constexpr std::uint64_t kLongest = 50;
  FakeWorkload reference(kRecords, kLongest);
  Pipeline{1, options_of(1, 512, 1000)}.run(reference);
  for (std::uint64_t round = 0; round < 200; ++round) {
    std::mt19937 random(static_cast<unsigned>(round));
    const auto below = [&](unsigned bound) { return static_cast<std::uint32_t>(random() % bound); };
    const int stages = static_cast<int>(1 + below(4));
    const std::uint32_t slots = 1 + below(6);
    const std::uint32_t step_tokens = 3 + below(60);
    Pipeline pipeline{stages, options_of(slots, step_tokens, 3 + below(10))};
    pipeline.options.max_sequences = 1 + below(8);
    pipeline.seed = round;
    pipeline.delay_us = 200;
    SCOPED_TRACE(testing::Message()
                 << "round " << round << ": " << pipeline.stages << " stages, "
                 << pipeline.options.slots << " slots, " << pipeline.options.max_step_tokens
                 << " tokens a step, " << pipeline.options.kv_blocks << " blocks");
    FakeWorkload workload(kRecords, kLongest);
    pipeline.run(workload);
    pipeline.expect_no_failures();
    ASSERT_EQ(workload.answers, reference.answers);
  }
}

}  // namespace
}  // namespace penstock::jobs
