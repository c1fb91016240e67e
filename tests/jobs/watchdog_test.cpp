// Stages that fall silent, stand still or are merely slow, as threads.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "tests/jobs/faulty_stage.hpp"

namespace penstock::jobs {
namespace {

using std::chrono::milliseconds;
using testing::ContainsRegex;
using testing::Each;
using testing::HasSubstr;
using testing::Not;

constexpr int kStages = 3;
constexpr milliseconds kTimeout{1000};

// Runs a pipeline of which stage `member` has the fault.
Pipeline faulty_pipeline(int member, Fault fault, milliseconds time) {
  Pipeline pipeline{kStages, options_of(kStages + 1, 32, 1000)};
  pipeline.watchdog = kTimeout;
  pipeline.make_stage = [=](int stage, comm::Endpoint&) {
    return std::make_unique<FaultyStage>(stage, kStages, stage == member ? fault : Fault::none, 5,
                                         time);
  };
  return pipeline;
}

TEST(PipelineWatchdog, SilentStagesAreNamedByTheDriver) {
  for (const int silent : {1, 2}) {
    FakeWorkload workload(200, 30);
    Pipeline pipeline = faulty_pipeline(silent, Fault::stuck, 5 * kTimeout);
    pipeline.run(workload);
    EXPECT_THAT(pipeline.failures[0],
                ContainsRegex("stage 0: no tokens of step [0-9]+ \\(slot [0-3]\\) from thread 2 "
                              "for [1-9][0-9]*\\.[0-9] s"));
    const std::string whose = silent == 2 ? "; last heard of it" : "; thread 1 is silent: last";
    EXPECT_THAT(pipeline.failures[0], HasSubstr(whose));
    EXPECT_THAT(pipeline.failures[0], ContainsRegex("[0-9.]+ s ago \\(progress [0-9]+\\)$"));
  }
}

TEST(PipelineWatchdog, ASilentDriverIsNamedByTheStages) {
  FakeWorkload workload(200, 30);
  Pipeline pipeline = faulty_pipeline(0, Fault::stuck, 5 * kTimeout);
  pipeline.run(workload);
  // One of them is the first, and the other's waits end when it leaves.
  EXPECT_THAT(
      pipeline.failures[1] + pipeline.failures[2],
      ContainsRegex("stage [12]: no .+ for [1-9][0-9]*\\.[0-9] s; (last heard of it|thread 0 is "
                    "silent: last heard of it) [0-9.]+ s ago"));
}

TEST(PipelineWatchdog, StandstillIsFoundThoughAllAreAlive) {
  FakeWorkload workload(200, 30);
  Pipeline pipeline = faulty_pipeline(1, Fault::still, {});
  pipeline.run(workload);
  EXPECT_THAT(pipeline.failures[1],
              ContainsRegex("stage 1: no end of the GPU's work on step [0-9]+ \\(slot [0-3]\\) for "
                            "[1-9][0-9]*\\.[0-9] s; all stages are alive, but none has made "
                            "progress for [1-9][0-9]*\\.[0-9] s$"));
}

TEST(PipelineWatchdog, SlowStagesAreWaitedFor) {
  for (int slow = 0; slow < kStages; ++slow) {
    FakeWorkload workload(20, 30);
    Pipeline pipeline = faulty_pipeline(slow, Fault::slow, 5 * kTimeout / 2);
    pipeline.run(workload);
    pipeline.expect_no_failures();
    EXPECT_EQ(workload.answers.size(), 20U);
  }
}

// Reads records that need no computing before it comes to others.
class BadRecords : public FakeWorkload {
 public:
  using FakeWorkload::FakeWorkload;
  std::optional<Work> next() override {
    if (std::chrono::steady_clock::now() >= end_) return FakeWorkload::next();
    std::this_thread::sleep_for(milliseconds(20));
    return Work{};
  }

 private:
  std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::now() + 5 * kTimeout / 2;
};

TEST(PipelineWatchdog, ADriverThatOnlyReadsIsAtWork) {
  BadRecords workload(20, 30);
  Pipeline pipeline = faulty_pipeline(0, Fault::none, {});
  pipeline.run(workload);
  pipeline.expect_no_failures();
  EXPECT_EQ(workload.answers.size(), 20U);
}

TEST(PipelineStopRequest, OfAnyStageComesToTheDriver) {
  for (const int asked : {1, 2}) {
    FakeWorkload workload(100, 30);
    Pipeline pipeline{kStages, options_of(kStages + 1, 32, 1000)};
    int calls = 0;  // by the stage that is asked
    pipeline.stop_request = [&](int member) {
      if (member != asked) return StopRequest::none;
      ++calls;
      if (calls < 10) return StopRequest::none;
      return calls < 20 ? StopRequest::drain : StopRequest::stop_now;
    };
    pipeline.run(workload);
    pipeline.expect_no_failures();
    EXPECT_THAT(workload.requests, testing::ElementsAre(StopRequest::drain, StopRequest::stop_now));
  }
}

}  // namespace
}  // namespace penstock::jobs
