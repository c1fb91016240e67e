// How a pipeline of ranks ends when one of them fails: messages and time, seen from outside.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "tests/support/program.hpp"

namespace penstock::jobs {
namespace {

using std::chrono::seconds;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

constexpr int kRanks = 3;
constexpr int kWatchdogMs = 3000;
// For starting and ending the ranks on a machine that has other things to do.
constexpr seconds kMargin{40};

struct Ending {
  tests::Finished finished;
  seconds took{0};
};

Ending run(const std::string& fault, int stage, const std::string& folder) {
  tests::Arguments command;
  std::istringstream mpirun(PENSTOCK_TEST_MPIRUN);
  for (std::string word; mpirun >> word;) command.push_back(word);
  command.insert(command.end(), {std::to_string(kRanks), PENSTOCK_TEST_PIPELINE_END, fault,
                                 std::to_string(stage), std::to_string(kWatchdogMs), folder});
  const auto start = std::chrono::steady_clock::now();
  Ending ending{tests::start(command), seconds(0)};
  ending.took = std::chrono::duration_cast<seconds>(std::chrono::steady_clock::now() - start);
  EXPECT_FALSE(ending.finished.hung) << ending.finished;
  return ending;
}

std::string flight_log(const tests::TemporaryFolder& folder, int rank) {
  return tests::read_bytes(folder / ("flight-000" + std::to_string(rank) + ".log"));
}

TEST(PipelineEnd, WithoutFaultIsGood) {
  const tests::TemporaryFolder folder;
  const Ending ending = run("none", 0, folder / "");
  EXPECT_EQ(ending.finished.code, 0) << ending.finished;
  EXPECT_EQ(ending.finished.out, "300 answers\n");
}

TEST(PipelineEnd, WeightsMayComeSlowly) {
  for (const int stage : {0, 1}) {
    const tests::TemporaryFolder folder;
    const Ending ending = run("load", stage, folder / "");
    EXPECT_EQ(ending.finished.code, 0) << ending.finished;
    EXPECT_EQ(ending.finished.out, "loaded after more than the watchdog's time\n");
  }
}

TEST(PipelineEnd, AnExceptionInSetupEndsAllRanks) {
  for (int stage = 0; stage < kRanks; ++stage) {
    const tests::TemporaryFolder folder;
    const Ending ending = run("setup", stage, folder / "");
    EXPECT_NE(ending.finished.code, 0);
    EXPECT_THAT(ending.finished.err,
                HasSubstr("error: the fake setup broke (rank " + std::to_string(stage)));
    EXPECT_THAT(ending.finished.err, Not(HasSubstr("no setup from")));
    EXPECT_LT(ending.took, kMargin);
  }
}

TEST(PipelineEnd, AnExceptionAtWorkEndsAllRanks) {
  for (int stage = 0; stage < kRanks; ++stage) {
    const tests::TemporaryFolder folder;
    const Ending ending = run("throw", stage, folder / "");
    EXPECT_NE(ending.finished.code, 0);
    EXPECT_THAT(ending.finished.err,
                HasSubstr("error: the fake stage broke (rank " + std::to_string(stage)));
    EXPECT_THAT(ending.finished.err, Not(HasSubstr("silent")));
    EXPECT_LT(ending.took, kMargin);
    // What the stage did last.
    const std::vector<std::string> lines = tests::lines_of(flight_log(folder, stage));
    EXPECT_EQ(lines[0].substr(0, 7), "stage " + std::to_string(stage));
    EXPECT_THAT(lines,
                testing::Contains(ContainsRegex("forward begins +step 50 slot [0-3]  rows")));
    EXPECT_THAT(lines, Not(testing::Contains(ContainsRegex("forward ends +step 50 "))));
    EXPECT_THAT(lines, testing::Contains(ContainsRegex("forward ends +step 49 ")));
    if (stage > 0) {
      for (const char* event : {"plan received", "receive posted", "activations arrived"}) {
        EXPECT_THAT(lines, testing::Contains(ContainsRegex(event + std::string(" +step 50 "))));
      }
    }
    EXPECT_THAT(lines, testing::Contains(ContainsRegex(stage == 0   ? "tokens arrived +step 4"
                                                       : stage == 1 ? "send posted +step 49 "
                                                                    : "tokens sent +step 49 ")));
  }
}

TEST(PipelineEnd, ARankThatHangsIsNamedWithWhatItOwes) {
  for (const int stage : {1, 2}) {
    const tests::TemporaryFolder folder;
    const Ending ending = run("stuck", stage, folder / "");
    EXPECT_NE(ending.finished.code, 0);
    EXPECT_THAT(
        ending.finished.err,
        ContainsRegex("error: stage 0: no tokens of step (4[0-9]|50) \\(slot [0-3]\\) from rank 2, "
                      "host [^ ]+ for [1-9][0-9]*\\.[0-9] s; "));
    EXPECT_THAT(ending.finished.err,
                ContainsRegex((stage == 2 ? "s; last heard of it "
                                          : "rank 1, host [^ ]+ is silent: last heard of it ") +
                              std::string("[0-9.]+ s ago \\(progress [0-9]+\\) \\(rank 0, "
                                          "host [^ ]+\\)")));
    EXPECT_GE(ending.took, seconds(kWatchdogMs / 1000));
    EXPECT_LT(ending.took, seconds(kWatchdogMs / 1000) + kMargin);
    EXPECT_THAT(flight_log(folder, 0),
                ContainsRegex("heartbeats missed +stage " + std::to_string(stage)));
  }
}

TEST(PipelineEnd, ADriverThatHangsIsNamed) {
  const tests::TemporaryFolder folder;
  const Ending ending = run("stuck", 0, folder / "");
  EXPECT_NE(ending.finished.code, 0);
  EXPECT_THAT(ending.finished.err,
              ContainsRegex("error: stage [12]: no (step plan|activations of step [0-9]+ \\(slot "
                            "[0-3]\\)) from rank [01], host [^ ]+ for [1-9][0-9]*\\.[0-9] s; (last "
                            "heard of it|rank 0, host [^ ]+ is silent: last heard of it) "));
}

TEST(PipelineEnd, ARankThatStandsStillSaysSo) {
  const tests::TemporaryFolder folder;
  const Ending ending = run("still", 1, folder / "");
  EXPECT_NE(ending.finished.code, 0);
  EXPECT_THAT(ending.finished.err,
              ContainsRegex("error: stage 1: no end of the GPU's work on step 50 \\(slot [0-3]\\) "
                            "for [1-9][0-9]*\\.[0-9] s; all stages are alive, but none has made "
                            "progress for [1-9][0-9]*\\.[0-9] s \\(rank 1, host "));
}

}  // namespace
}  // namespace penstock::jobs
