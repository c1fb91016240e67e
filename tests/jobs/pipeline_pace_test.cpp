// How the driver stops early, and goes on in another run, with the stages of fake_pipeline.hpp.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <vector>

#include "jobs/pipeline.hpp"
#include "tests/jobs/fake_pipeline.hpp"

namespace penstock::jobs {
namespace {

constexpr std::uint64_t kRecords = 40;
constexpr std::uint64_t kLongest = 90;

using Answers = std::map<std::uint64_t, std::vector<std::int32_t>>;

bool is_complete(const Answers::value_type& entry) {
  return entry.second.size() == FakeWorkload::answer_tokens(entry.first);
}

// One run of a job: goes on with what others left in `answers`.
class PacedWorkload : public FakeWorkload {
 public:
  explicit PacedWorkload(Answers before) : FakeWorkload(kRecords, kLongest) {
    answers = std::move(before);
  }

  std::optional<Work> next() override {
    while (std::optional<Work> work = FakeWorkload::next()) {
      const auto before = answers.find(work->record);
      if (before != answers.end()) {
        if (is_complete(*before)) continue;
        work->generated = before->second;
      }
      ++read;
      if (last_pace != Pace::admit) ++read_late;
      return work;
    }
    return std::nullopt;
  }
  bool accept(std::uint64_t record, std::int32_t token) override {
    ++tokens;
    if (last_pace != Pace::admit) ++tokens_late;
    return FakeWorkload::accept(record, token);
  }
  Pace pace(const std::function<double()>& needed_seconds) override {
    ++asked;
    needed = needed_seconds();
    EXPECT_GE(needed, 0);
    EXPECT_LT(needed, 1000);
    last_pace = decide ? decide(*this) : Pace::admit;
    return last_pace;
  }
  void stop_requested(StopRequest request) override { requests.push_back(request); }

  std::function<Pace(PacedWorkload&)> decide;
  Pace last_pace = Pace::admit;
  double needed = 0;
  int asked = 0;
  std::uint64_t read = 0;
  std::uint64_t read_late = 0;  // records, when none was to be admitted
  std::uint64_t tokens = 0;
  std::uint64_t tokens_late = 0;
  std::vector<StopRequest> requests;
};

Answers reference() {
  FakeWorkload workload(kRecords, kLongest);
  Pipeline{1, options_of(1, 512, 1000)}.run(workload);
  EXPECT_EQ(workload.answers.size(), kRecords);
  return workload.answers;
}

Pipeline layout(int stages, std::uint32_t blocks = 40) {
  Pipeline pipeline{stages, options_of(3, 40, blocks)};
  pipeline.options.max_sequences = 4;
  return pipeline;
}

// Under drain all that was begun is finished, and nothing else is begun.
TEST(PipelinePace, DrainFinishesWhatIsUnderWay) {
  const Answers whole = reference();
  for (const int stages : {1, 2, 4}) {
    for (const std::uint32_t blocks : {5U, 40U, 1000U}) {
      for (const int when : {0, 1, 5, 40}) {
        SCOPED_TRACE(testing::Message()
                     << stages << " stages, " << blocks << " blocks, drain at " << when);
        PacedWorkload workload({});
        workload.decide = [&](const PacedWorkload& w) {
          return w.asked > when ? Pace::drain : Pace::admit;
        };
        Pipeline pipeline = layout(stages, blocks);
        pipeline.run(workload);
        pipeline.expect_no_failures();
        EXPECT_EQ(workload.read_late, 0U);
        EXPECT_LT(workload.answers.size(), kRecords);
        EXPECT_EQ(workload.answers.empty(), when == 0);
        for (const auto& entry : workload.answers) {
          EXPECT_TRUE(is_complete(entry)) << "record " << entry.first;
          EXPECT_EQ(entry.second, whole.at(entry.first));
        }
      }
    }
  }
}

// Counts what it samples.
class CountingStage : public FakeStage {
 public:
  CountingStage(int stage, int stages, std::atomic<std::uint64_t>& count)
      : FakeStage(stage, stages), count_(count) {}
  void forward(const model::StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override {
    FakeStage::forward(plan, in, out, progress);
    count_ += sampled().size();
  }

 private:
  std::atomic<std::uint64_t>& count_;  // of all stages
};

// Under stop nothing more is computed but the steps that are under way, whose tokens count.
TEST(PipelinePace, StopEndsAtOnce) {
  const Answers whole = reference();
  for (const int stages : {1, 3}) {
    for (const int when : {0, 1, 2, 30, 60}) {
      SCOPED_TRACE(testing::Message() << stages << " stages, stop at " << when);
      PacedWorkload workload({});
      workload.decide = [&](const PacedWorkload& w) {
        return w.asked > when ? Pace::stop : Pace::admit;
      };
      Pipeline pipeline = layout(stages);
      std::atomic<std::uint64_t> sampled = 0;
      pipeline.make_stage = [&](int member, comm::Endpoint&) {
        return std::make_unique<CountingStage>(member, stages, sampled);
      };
      const PipelineTotals totals = pipeline.run(workload);
      pipeline.expect_no_failures();
      EXPECT_EQ(workload.asked, when + 1) << "asked once more than it was admitted";
      EXPECT_LE(totals.steps, static_cast<std::uint64_t>(when));
      EXPECT_EQ(workload.tokens, sampled) << "none is lost on the way";
      EXPECT_EQ(totals.generated_tokens, sampled);
      for (const auto& [record, answer] : workload.answers) {
        const std::vector<std::int32_t>& all = whole.at(record);
        ASSERT_LE(answer.size(), all.size());
        EXPECT_EQ(answer,
                  std::vector<std::int32_t>(
                      all.begin(), all.begin() + static_cast<std::ptrdiff_t>(answer.size())));
      }
    }
  }
}

// A job of many short runs, each with another layout, gives the tokens of one long run.
TEST(PipelinePace, RunsThatGoOnGiveTheSameTokens) {
  const Answers whole = reference();
  for (const int step : {15, 20, 40}) {
    for (const Pace way : {Pace::stop, Pace::drain}) {
      SCOPED_TRACE(testing::Message() << step << (way == Pace::stop ? " stop" : " drain"));
      Answers answers;
      int runs = 0;
      for (; answers != whole && runs < 1000; ++runs) {
        PacedWorkload workload(answers);
        workload.decide = [&](const PacedWorkload& w) {
          return w.asked > step ? way : Pace::admit;
        };
        Pipeline pipeline = layout(1 + runs % 4, 5 + static_cast<std::uint32_t>(runs) * 7 % 50);
        pipeline.run(workload);
        pipeline.expect_no_failures();
        EXPECT_GT(workload.tokens, 0U) << "a run must get on";
        ASSERT_GT(workload.tokens, 0U);
        answers = workload.answers;
      }
      EXPECT_EQ(answers, whole);
      EXPECT_GT(runs, 2);
    }
  }
}

// The end has moved away again.
TEST(PipelinePace, DrainMayEnd) {
  const Answers whole = reference();
  PacedWorkload workload({});
  workload.decide = [](const PacedWorkload& w) {
    return w.asked > 10 && w.asked < 20 ? Pace::drain : Pace::admit;
  };
  Pipeline pipeline = layout(2);
  pipeline.run(workload);
  pipeline.expect_no_failures();
  EXPECT_EQ(workload.answers, whole);
}

TEST(PipelinePace, NeededSecondsAreThoseThatFollow) {
  PacedWorkload workload({});
  double predicted = 0;
  std::chrono::steady_clock::time_point then;
  workload.decide = [&](const PacedWorkload& w) {
    if (w.asked < 60) return Pace::admit;
    if (w.asked == 60) {
      predicted = w.needed;
      then = std::chrono::steady_clock::now();
    }
    return Pace::drain;
  };
  Pipeline pipeline = layout(2);
  pipeline.delay_us = 2000;
  pipeline.run(workload);
  pipeline.expect_no_failures();
  const double taken =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - then).count();
  EXPECT_GT(predicted, 0);
  // Some answers stop before their limit, so it is an upper bound, but no wild one. Machines that
  // do other things at the same time make it no sharper.
  EXPECT_LT(predicted, 100 * taken);
  EXPECT_LT(taken, 100 * predicted);
}

// A signal to any rank goes to the driver.
TEST(PipelinePace, OtherStagesAreHeard) {
  // Only the local link: stages are told by a hook of run_stage.
  std::vector<comm::Endpoint> endpoints = comm::local_endpoints(2);
  PacedWorkload workload({});
  workload.decide = [](const PacedWorkload& w) {
    return w.requests.empty() ? Pace::admit : Pace::stop;
  };
  const PipelineOptions options = options_of(2, 40, 40);
  std::jthread other([&] {
    FakeStage stage(1, 2);
    stage.allocate_kv(options.kv_blocks);
    run_stage(endpoints[1], stage, options, nullptr, [] { return StopRequest::terminate; });
    endpoints[1].control->all_gather("", "the end", std::chrono::seconds(20));
  });
  FakeStage stage(0, 2);
  stage.allocate_kv(options.kv_blocks);
  run_driver(endpoints[0], stage, options, any_cost(), workload);
  endpoints[0].control->all_gather("", "the end", std::chrono::seconds(20));
  ASSERT_FALSE(workload.requests.empty());
  for (const StopRequest request : workload.requests) EXPECT_EQ(request, StopRequest::terminate);
  EXPECT_LT(workload.answers.size(), kRecords);
}

}  // namespace
}  // namespace penstock::jobs
