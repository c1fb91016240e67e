// Ranks of a job that die, are stopped, or are stopped for a while, as mpirun and users see it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "comm/control.hpp"
#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using std::chrono::seconds;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

constexpr int kRanks = 3;
constexpr seconds kWatchdog{4};
// For starting and ending the ranks on a machine that has other things to do.
constexpr seconds kMargin{60};

// A job of three ranks that takes some seconds.
class Job {
 public:
  explicit Job(int records = 300)
      : records_(records), process_(by_mpirun(kRanks, arguments()), input_) {
    ::close(input_);
  }

  // Waits until answers are computed.
  void wait_for_work() {
    ASSERT_TRUE(process_.reaches([&] {
      std::error_code none_yet;
      return std::filesystem::file_size(place_ / "out.jsonl.job/journal-0000.jsonl", none_yet) >
                 0 &&
             !none_yet;
    })) << process_.wait(seconds(5));
    find_ranks();
    ASSERT_EQ(ranks_.size(), static_cast<std::size_t>(kRanks));
  }

  void signal(int rank, int number) const { kill(ranks_.at(rank), number); }
  void signal_all(int number) const {
    for (const auto& [rank, pid] : ranks_) kill(pid, number);
  }
  Finished wait() { return process_.wait(); }
  std::string state() const { return read_bytes(place_ / "out.jsonl.job/state"); }
  std::string flight_log(int rank) const {
    return read_bytes(place_ / ("out.jsonl.job/flight-000" + std::to_string(rank) + ".log"));
  }
  std::string answers() const { return read_bytes(place_ / "out.jsonl"); }

  // What the same job gives undisturbed.
  std::string undisturbed_answers() const {
    const std::string path = place_ / "undisturbed.jsonl";
    Arguments command = arguments();
    command[4] = path;
    const Finished finished = start(Arguments{PENSTOCK_PROGRAM} + command);
    EXPECT_EQ(finished.code, 0) << finished;
    return read_bytes(path);
  }

 private:
  Arguments arguments() const {
    std::string records;
    for (int i = 0; i < records_; ++i) {
      records += R"({"prompt":"It was on the )" + std::to_string(i) + "th of the month\"}\n";
    }
    return {"run",
            kEmbeddedModel,
            "--input=" + place_.write("in.jsonl", records),
            "--output",
            place_ / "out.jsonl",
            "--max-tokens=120",
            "--ignore-eos",
            "--threads=1",
            "--device=cpu",
            "--kv-memory=16M",
            "--max-step-tokens=24",
            "--progress=none",
            "--watchdog-seconds=" + std::to_string(kWatchdog.count())};
  }

  // mpirun's children, by what it told them of themselves.
  void find_ranks() {
    const std::string pid = std::to_string(process_.pid());
    std::istringstream children(read_bytes("/proc/" + pid + "/task/" + pid + "/children"));
    for (pid_t child = 0; children >> child;) {
      const std::string environment = read_bytes("/proc/" + std::to_string(child) + "/environ");
      const std::string name = "OMPI_COMM_WORLD_RANK=";
      const std::size_t at = environment.find(name);
      if (at != std::string::npos) ranks_[std::atoi(&environment[at + name.size()])] = child;
    }
  }

  TemporaryFolder place_;
  int records_;
  int input_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  Process process_;
  std::map<int, pid_t> ranks_;
};

class WatchdogOfRank : public testing::TestWithParam<int> {};

TEST_P(WatchdogOfRank, KilledOneEndsTheJobAtOnce) {
  Job job;
  job.wait_for_work();
  const auto start = std::chrono::steady_clock::now();
  job.signal(GetParam(), SIGKILL);
  const Finished finished = job.wait();
  EXPECT_NE(finished.code, 0) << finished;
  EXPECT_LT(std::chrono::steady_clock::now() - start, kMargin);
  EXPECT_THAT(finished.err, HasSubstr("rank " + std::to_string(GetParam())));  // says mpirun
  for (int rank = 0; rank < kRanks; ++rank) {
    if (rank == GetParam()) continue;  // had no time to say anything
    EXPECT_THAT(job.flight_log(rank), HasSubstr("stage " + std::to_string(rank)));
  }
  EXPECT_THAT(job.state(), HasSubstr("running"));
}

TEST_P(WatchdogOfRank, StoppedOneIsNamed) {
  Job job(20'000);  // more than it comes to
  job.wait_for_work();
  std::this_thread::sleep_for(3 * comm::kBeatInterval);  // heartbeats have told of it
  const auto start = std::chrono::steady_clock::now();
  job.signal(GetParam(), SIGSTOP);
  const Finished finished = job.wait();
  EXPECT_NE(finished.code, 0) << finished;
  EXPECT_GE(std::chrono::steady_clock::now() - start, kWatchdog);
  EXPECT_LT(std::chrono::steady_clock::now() - start, kWatchdog + kMargin);
  const std::string rank = std::to_string(GetParam());
  if (GetParam() == 0) {
    EXPECT_THAT(
        finished.err,
        ContainsRegex("error: stage [12]: no [^;]+ from rank [01], host [^ ]+ for [0-9.]+ s; "
                      "(last heard of it|rank 0, host [^ ]+ is silent: last heard of it) "
                      "[0-9.]+ s ago \\(progress [1-9][0-9]*\\) \\(rank [12], host "));
  } else {
    EXPECT_THAT(finished.err,
                ContainsRegex("error: stage 0: no tokens of step [0-9]+ \\(slot [0-3]\\) from rank "
                              "2, host [^ ]+ for [0-9.]+ s; (last heard of it|rank " +
                              rank +
                              ", host [^ ]+ is silent: last heard of it) [0-9.]+ s ago \\(progress "
                              "[1-9][0-9]*\\) \\(rank 0, host "));
    EXPECT_THAT(job.flight_log(0), ContainsRegex("heartbeats missed +stage " + rank));
  }
  EXPECT_THAT(job.state(), HasSubstr("running"));
}

TEST_P(WatchdogOfRank, OneThatIsStoppedForAWhileGoesOn) {
  Job job;
  job.wait_for_work();
  job.signal(GetParam(), SIGSTOP);
  std::this_thread::sleep_for(kWatchdog / 3);
  job.signal(GetParam(), SIGCONT);
  const Finished finished = job.wait();
  EXPECT_EQ(finished.code, 0) << finished;
  EXPECT_EQ(job.answers(), job.undisturbed_answers());
}

INSTANTIATE_TEST_SUITE_P(Ranks, WatchdogOfRank, testing::Values(0, 1, 2),
                         testing::PrintToStringParamName());

// As a batch system does that suspends a job.
TEST(WatchdogOfAll, JobThatIsSuspendedForLongGoesOn) {
  Job job;
  job.wait_for_work();
  job.signal_all(SIGSTOP);
  std::this_thread::sleep_for(2 * kWatchdog);
  job.signal_all(SIGCONT);
  const Finished finished = job.wait();
  EXPECT_EQ(finished.code, 0) << finished;
  EXPECT_EQ(job.answers(), job.undisturbed_answers());
}

// Nothing of penstock runs in it yet.
TEST(WatchdogOfStart, RankThatNeverComesEndsTheStart) {
  Arguments command = by_mpirun(
      2, {"run", kEmbeddedModel, "--input=in.jsonl", "--output=out.jsonl", "--watchdog-seconds=3"});
  const auto program = std::find(command.begin(), command.end(), PENSTOCK_PROGRAM);
  const Arguments stopped = {
      "sh", "-c", R"([ "$OMPI_COMM_WORLD_RANK" = 0 ] || kill -STOP $$; exec "$@")", "sh"};
  command.insert(program, stopped.begin(), stopped.end());
  const Finished finished = start(command);
  EXPECT_NE(finished.code, 0) << finished;
  EXPECT_THAT(finished.err, ContainsRegex("error: the start of MPI \\(host .+\\) has not ended for "
                                          "15 s: another rank is gone or stopped"));
}

TEST(WatchdogOption, OutOfRangeIsRefused) {
  for (const char* value : {"0", "2", "-1", "86401"}) {
    const Finished finished = penstock(
        {"run", kEmbeddedModel, "--input", "x", "--output", "y", "--watchdog-seconds", value});
    EXPECT_EQ(finished.code, 1) << finished;
    EXPECT_THAT(finished.err, HasSubstr("--watchdog-seconds " + std::string(value) +
                                        " is out of range: give 3 to 86400"));
  }
}

}  // namespace
}  // namespace penstock::tests
