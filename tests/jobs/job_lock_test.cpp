#include "jobs/job_lock.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "io/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace penstock::jobs {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::ThrowsMessage;

constexpr LockTiming kQuick{20ms, 200ms, 5ms};
// For tests in which waiting would be wrong: they would not end.
constexpr LockTiming kNeverStale{20ms, 24h, 5ms};

class JobLockTest : public testing::Test {
 protected:
  auto tell() {
    return [this](std::string_view text) { told_.emplace_back(text); };
  }
  // A holder on another machine, of which nothing is known.
  static LockContent stranger(std::uint64_t counter = 0) {
    LockContent lock;
    lock.holder.host = "n041";
    lock.holder.boot_id = "boot";
    lock.holder.pid_namespace = "pid:[1]";
    lock.holder.pid = 123;
    lock.holder.slurm_job_id = "77";
    lock.token = "stranger";
    lock.counter = counter;
    return lock;
  }
  void write_lock(const std::string& bytes) const {
    folder_.write("other", bytes);
    fs::rename((folder_ / "other"), (folder_ / "lock"));
  }
  std::uint64_t counter() const {
    const auto lock = parse_lock(folder_.read("lock"));
    return lock ? lock->counter : 0;
  }
  static void wait_until(const std::function<bool()>& condition) {
    const auto limit = std::chrono::steady_clock::now() + 60s;
    while (!condition() && std::chrono::steady_clock::now() < limit) {
      std::this_thread::sleep_for(1ms);
    }
    EXPECT_TRUE(condition());
  }

  const tests::TemporaryFolder folder_;
  std::vector<std::string> told_;
};

TEST_F(JobLockTest, NamesThisProcessAndIsRemovedAtTheEnd) {
  {
    const JobLock lock(folder_.path(), tell());
    EXPECT_THAT(folder_.names(), ElementsAre("lock"));
    const auto content = parse_lock(folder_.read("lock"));
    ASSERT_TRUE(content);
    EXPECT_EQ(content->holder.pid, getpid());
    EXPECT_EQ(content->holder.host, this_process().host);
    EXPECT_EQ(content->token.size(), 32U);
    EXPECT_FALSE(lock.lost());
    EXPECT_NO_THROW(lock.check());
  }
  EXPECT_THAT(folder_.names(), IsEmpty());
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(JobLockTest, CounterMoves) {
  const JobLock lock(folder_.path(), {}, kQuick);
  wait_until([&] { return counter() >= 3; });
  EXPECT_FALSE(lock.lost());
}

TEST_F(JobLockTest, SecondJobIsRefused) {
  const JobLock first(folder_.path(), tell(), kNeverStale);
  EXPECT_THAT([&] { JobLock(folder_.path(), tell(), kNeverStale); },
              ThrowsMessage<io::FileError>(
                  AllOf(HasSubstr(folder_.path() + ": another job works on it: host "),
                        HasSubstr("process " + std::to_string(getpid())), HasSubstr("--output"))));
  EXPECT_THAT(told_, ElementsAre(HasSubstr("another job may be at work on it")));
  EXPECT_NO_THROW(first.check());
  EXPECT_THAT(folder_.names(), ElementsAre("lock"));
}

TEST_F(JobLockTest, OnceReleasedItIsFree) {
  { const JobLock first(folder_.path(), tell(), kNeverStale); }
  { const JobLock second(folder_.path(), tell(), kNeverStale); }
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(JobLockTest, ReleaseWhileANewcomerLooksOnLetsItIn) {
  auto first = std::make_unique<JobLock>(folder_.path(), tell(), LockTiming{1h, 24h, 5ms});
  std::atomic<bool> waiting{false};
  std::thread newcomer([&] {
    const JobLock second(
        folder_.path(), [&](std::string_view) { waiting = true; }, kNeverStale);
    EXPECT_NO_THROW(second.check());
  });
  wait_until([&] { return waiting.load(); });
  first.reset();
  newcomer.join();
  EXPECT_THAT(folder_.names(), IsEmpty());
}

TEST_F(JobLockTest, HolderThatIsGoneMakesWayAtOnce) {
  LockContent old = stranger();
  old.holder = this_process();
  old.holder.start_time -= 1;  // an earlier process of this pid
  write_lock(to_text(old));
  const JobLock lock(folder_.path(), tell(), kNeverStale);
  EXPECT_THAT(told_, IsEmpty());
  EXPECT_EQ(parse_lock(folder_.read("lock"))->holder.start_time, this_process().start_time);
  EXPECT_THAT(folder_.names(), ElementsAre("lock"));
}

TEST_F(JobLockTest, KilledHolderMakesWayAtOnce) {
  const pid_t child = fork();
  if (child == 0) {
    const JobLock lock(folder_.path(), {}, kQuick);
    pause();
    _exit(0);
  }
  wait_until([&] { return counter() >= 1; });
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  const JobLock lock(folder_.path(), tell(), kNeverStale);
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(JobLockTest, StrangerThatMovesIsRefused) {
  write_lock(to_text(stranger()));
  std::atomic<bool> waiting{false};
  std::thread holder([&] {
    wait_until([&] { return waiting.load(); });
    folder_.write("lock", to_text(stranger(1)));
  });
  EXPECT_THAT(
      [&] {
        JobLock(
            folder_.path(), [&](std::string_view) { waiting = true; }, kNeverStale);
      },
      ThrowsMessage<io::FileError>(AllOf(HasSubstr("host 'n041', process 123, Slurm job '77'"))));
  holder.join();
  EXPECT_EQ(folder_.read("lock"), to_text(stranger(1)));
  EXPECT_THAT(folder_.names(), ElementsAre("lock"));
}

TEST_F(JobLockTest, StrangerThatStandsStillIsStale) {
  write_lock(to_text(stranger()));
  const auto start = std::chrono::steady_clock::now();
  const JobLock lock(folder_.path(), tell(), kQuick);
  EXPECT_GE(std::chrono::steady_clock::now() - start, kQuick.stale);
  EXPECT_THAT(told_, ElementsAre(AllOf(HasSubstr("host 'n041'"), HasSubstr("up to 1 s"))));
  EXPECT_NO_THROW(lock.check());
}

TEST_F(JobLockTest, OldFileIsWatchedForARefreshAndAHalfOnly) {
  write_lock(to_text(stranger()));
  fs::last_write_time((folder_ / "lock"), fs::file_time_type::clock::now() - 48h);
  const auto start = std::chrono::steady_clock::now();
  const JobLock lock(folder_.path(), tell(), kNeverStale);
  EXPECT_GE(std::chrono::steady_clock::now() - start, kNeverStale.refresh * 3 / 2);
  EXPECT_THAT(told_, SizeIs(1));
}

TEST_F(JobLockTest, OldFileThatMovesIsRefusedAllTheSame) {
  const JobLock first(folder_.path(), {}, LockTiming{500ms, 24h, 5ms});
  // As after a clock that was set forward.
  fs::last_write_time((folder_ / "lock"), fs::file_time_type::clock::now() - 48h);
  EXPECT_THAT(
      [&] {
        JobLock(folder_.path(), {}, LockTiming{20s, 24h, 5ms});
      },
      testing::Throws<io::FileError>());
}

TEST_F(JobLockTest, RubbishIsStaleInTime) {
  for (const std::string& bytes :
       {std::string(), std::string("{}"), std::string(5000, '\0'), std::string(1 << 20, 'x')}) {
    write_lock(bytes);
    told_.clear();
    const JobLock lock(folder_.path(), tell(), kQuick);
    EXPECT_THAT(told_, ElementsAre(HasSubstr("does not say whose")));
    EXPECT_TRUE(parse_lock(folder_.read("lock")));
  }
}

TEST_F(JobLockTest, RubbishThatChangesIsRefused) {
  write_lock("");
  std::atomic<bool> waiting{false};
  std::thread holder([&] {
    wait_until([&] { return waiting.load(); });
    folder_.write("lock", "more");
  });
  EXPECT_THAT(
      [&] {
        JobLock(
            folder_.path(), [&](std::string_view) { waiting = true; }, kNeverStale);
      },
      testing::Throws<io::FileError>());
  holder.join();
}

TEST_F(JobLockTest, TakenOverIsLost) {
  {
    const JobLock lock(folder_.path(), tell(), kQuick);
    write_lock(to_text(stranger()));
    EXPECT_THAT([&] { lock.check(); },
                ThrowsMessage<io::FileError>(HasSubstr("another job took over the lock")));
    EXPECT_TRUE(lock.lost());
  }
  EXPECT_EQ(folder_.read("lock"), to_text(stranger()));  // it is not ours to remove
}

TEST_F(JobLockTest, TheThreadNoticesThatItIsLost) {
  const JobLock lock(folder_.path(), tell(), kQuick);
  write_lock(to_text(stranger()));
  wait_until([&] { return lock.lost(); });
  EXPECT_EQ(folder_.read("lock"), to_text(stranger()));
}

TEST_F(JobLockTest, RemovedIsLost) {
  const JobLock lock(folder_.path(), tell(), kQuick);
  fs::remove((folder_ / "lock"));
  wait_until([&] { return lock.lost(); });
  EXPECT_THAT(folder_.names(), IsEmpty());
}

TEST_F(JobLockTest, StoppedHolderLosesItAndKnowsWhenItGoesOn) {
  const pid_t child = fork();
  if (child == 0) {
    const JobLock lock(folder_.path(), {}, kQuick);
    while (!lock.lost()) std::this_thread::sleep_for(1ms);
    _exit(17);
  }
  wait_until([&] { return counter() >= 1; });
  kill(child, SIGSTOP);
  waitpid(child, nullptr, WUNTRACED);
  {
    const JobLock lock(folder_.path(), tell(), kQuick);
    EXPECT_THAT(told_, SizeIs(1));
    kill(child, SIGCONT);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 17);
    EXPECT_NO_THROW(lock.check());
  }
  EXPECT_THAT(folder_.names(), IsEmpty());
}

TEST_F(JobLockTest, OneOfManyNewcomersTakesAStaleLock) {
  for (int round = 0; round < 20; ++round) {
    LockContent old = stranger();
    old.holder = this_process();
    old.holder.start_time -= 1;
    write_lock(to_text(old));
    std::atomic<int> taken{0};
    std::atomic<int> refused{0};
    std::atomic<int> done{0};
    std::vector<std::thread> newcomers;
    for (int i = 0; i < 6; ++i) {
      newcomers.emplace_back([&] {
        try {
          const JobLock lock(folder_.path(), {}, kNeverStale);
          ++taken;
          ++done;
          while (done < 6) std::this_thread::sleep_for(1ms);  // until the others have tried
          EXPECT_NO_THROW(lock.check());
        } catch (const io::FileError&) {
          ++refused;
          ++done;
        }
      });
    }
    for (std::thread& newcomer : newcomers) newcomer.join();
    EXPECT_EQ(taken, 1);
    EXPECT_EQ(refused, 5);
    EXPECT_THAT(folder_.names(), IsEmpty());
  }
}

TEST_F(JobLockTest, NeedsAFolderThatCanBeWritten) {
  EXPECT_THAT([&] { JobLock((folder_ / "absent"), {}); },
              ThrowsMessage<io::FileError>(HasSubstr("absent")));
  EXPECT_THAT([&] { JobLock("/proc/self", {}); }, testing::Throws<io::FileError>());
}

}  // namespace
}  // namespace penstock::jobs
