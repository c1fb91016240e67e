#include "jobs/lock_holder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <random>
#include <string>
#include <thread>

#include "tests/support/fake_commands.hpp"

namespace penstock::jobs {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::HasSubstr;
using tests::FakeCommands;
using tests::Variable;

bool operator==(const LockHolder& a, const LockHolder& b) {
  return to_text({a, "", 0}) == to_text({b, "", 0});
}

LockHolder someone() {
  LockHolder holder;
  holder.host = "n041";
  holder.boot_id = "11111111-2222-3333-4444-555555555555";
  holder.pid_namespace = "pid:[4026531836]";
  holder.pid = 123;
  holder.start_time = 456;
  holder.user = 1000;
  holder.slurm_cluster = "blue";
  holder.slurm_job_id = "77";
  holder.slurm_restart_count = 2;
  return holder;
}

TEST(LockHolder, ThisProcessIsAlive) {
  const LockHolder self = this_process();
  EXPECT_EQ(self.pid, getpid());
  EXPECT_EQ(self.user, geteuid());
  EXPECT_FALSE(self.host.empty());
  EXPECT_EQ(self.boot_id.size(), 36U);
  EXPECT_THAT(self.pid_namespace, testing::StartsWith("pid:["));
  EXPECT_GT(self.start_time, 0U);
  EXPECT_EQ(fate_of(self, self), HolderFate::alive);
}

TEST(LockHolder, SlurmJobIsTakenFromTheEnvironment) {
  const Variable cluster("SLURM_CLUSTER_NAME", "blue");
  const Variable job("SLURM_JOB_ID", "77");
  {
    const Variable none("SLURM_RESTART_COUNT");
    EXPECT_EQ(this_process().slurm_restart_count, 0U);
  }
  const Variable restarts("SLURM_RESTART_COUNT", "2");
  EXPECT_EQ(this_process().slurm_cluster, "blue");
  EXPECT_EQ(this_process().slurm_job_id, "77");
  EXPECT_EQ(this_process().slurm_restart_count, 2U);
}

TEST(LockHolder, ProcessWithThePidOfOneThatEndedIsNotIt) {
  const LockHolder self = this_process();
  LockHolder earlier = self;
  earlier.start_time -= 1;
  EXPECT_EQ(fate_of(earlier, self), HolderFate::gone);
}

TEST(LockHolder, ProcessThatEndedIsGone) {
  const LockHolder self = this_process();
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  LockHolder holder = self;
  holder.pid = child;
  // The child's start, as the kernel shows it to ps.
  FILE* ps = popen(("cut -d ' ' -f 22 /proc/" + std::to_string(child) + "/stat").c_str(), "r");
  ASSERT_EQ(fscanf(ps, "%lu", &holder.start_time), 1);
  pclose(ps);
  EXPECT_EQ(fate_of(holder, self), HolderFate::alive);
  kill(child, SIGSTOP);
  EXPECT_EQ(fate_of(holder, self), HolderFate::alive);
  kill(child, SIGKILL);
  // Nobody has waited for it yet: a zombie.
  siginfo_t info{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(fate_of(holder, self), HolderFate::gone);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(fate_of(holder, self), HolderFate::gone);
}

TEST(LockHolder, PidsOfAnotherNamespaceOrBootAreNotLookedAt) {
  const LockHolder self = this_process();
  LockHolder holder = self;
  holder.start_time = 1;  // gone, if it were ours
  holder.pid_namespace = "pid:[1]";
  EXPECT_EQ(fate_of(holder, self), HolderFate::unknown);
  holder.pid_namespace = "";
  EXPECT_EQ(fate_of(holder, self), HolderFate::unknown);
  holder = self;
  holder.host = "elsewhere";
  holder.boot_id = "another";
  holder.start_time = 1;
  EXPECT_EQ(fate_of(holder, self), HolderFate::unknown);
}

TEST(LockHolder, ImpossiblePidsAreUnknown) {
  const LockHolder self = this_process();
  for (const std::int64_t pid :
       {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1} << 40, std::int64_t{1} << 62}) {
    LockHolder holder = self;
    holder.pid = pid;
    EXPECT_EQ(fate_of(holder, self), HolderFate::unknown) << pid;
  }
}

TEST(LockHolder, MachineThatWasRestartedHasNoneOfIts) {
  LockHolder self = someone();
  self.boot_id = "another";
  EXPECT_EQ(fate_of(someone(), self), HolderFate::gone);
  self.host = "n042";
  EXPECT_EQ(fate_of(someone(), self), HolderFate::unknown);
  // Many machines have this name.
  LockHolder local = someone();
  self.host = local.host = "localhost.localdomain";
  EXPECT_EQ(fate_of(local, self), HolderFate::unknown);
}

TEST(LockHolder, OwnSlurmJobsEarlierRunIsGone) {
  LockHolder self = someone();
  self.host = "n042";
  self.boot_id = "another";
  EXPECT_EQ(fate_of(someone(), self), HolderFate::unknown);  // another step of this run
  self.slurm_restart_count = 3;
  EXPECT_EQ(fate_of(someone(), self), HolderFate::gone);
  self.slurm_cluster = "green";
  EXPECT_EQ(fate_of(someone(), self), HolderFate::unknown);
  self.slurm_cluster = "blue";
  self.slurm_job_id = "78";
  EXPECT_EQ(fate_of(someone(), self), HolderFate::unknown);
}

struct Queue {
  int status;
  std::string out;
  std::string err;
  HolderFate expected;
};

TEST(SqueueAnswer, IsUnderstood) {
  constexpr HolderFate gone = HolderFate::gone;
  constexpr HolderFate unknown = HolderFate::unknown;
  for (const Queue& queue : {
           Queue{0, "", "", gone},  // it has ended, and is still remembered
           Queue{1, "", "slurm_load_jobs error: Invalid job id specified\n", gone},
           Queue{1, "", "slurm_load_jobs error: Unable to contact slurm controller\n", unknown},
           Queue{0, "77 RUNNING\n", "", unknown},
           Queue{0, "77 COMPLETING\n", "", unknown},
           Queue{0, "77 SUSPENDED\n", "", unknown},
           Queue{0, "77 SOMETHING_NEW\n", "", unknown},
           Queue{0, "77 PENDING\n", "", gone},
           Queue{0, "77 NODE_FAIL\n", "", gone},
           Queue{0, "77 TIMEOUT", "", gone},
           Queue{0, "78 RUNNING\n79 PENDING\n77 COMPLETED\n", "", gone},
           Queue{0, "78 COMPLETED\n77 RUNNING\n79 PENDING\n", "", unknown},
           Queue{0, "78 RUNNING\n", "", gone},
           Queue{0, "rubbish\n", "", unknown},
           Queue{0, "\n", "", unknown},
       }) {
    EXPECT_EQ(fate_from_squeue("77", queue.status, queue.out, queue.err), queue.expected)
        << queue.out << queue.err;
  }
}

class AskSlurmTest : public testing::Test {
 protected:
  AskSlurmTest() {
    self_.slurm_job_id = "78";
    commands_.add("squeue", R"([ "$*" = "-h -j 77 -o %A %T" ] || { echo 77 RUNNING; exit 0; }
exit 0)");
  }
  const FakeCommands commands_;
  LockHolder self_ = someone();
  LockHolder holder_ = someone();
};

TEST_F(AskSlurmTest, TellsOfAnotherJobOfTheClusterAndUser) {
  EXPECT_EQ(ask_slurm(holder_, self_), HolderFate::gone);
}

TEST_F(AskSlurmTest, IsNotAskedAboutOthers) {
  self_.slurm_cluster = "green";  // its jobs have the same numbers
  EXPECT_EQ(ask_slurm(holder_, self_), HolderFate::unknown);
  self_.slurm_cluster = holder_.slurm_cluster = "";
  EXPECT_EQ(ask_slurm(holder_, self_), HolderFate::unknown);
  self_ = holder_ = someone();  // the very job we are in
  EXPECT_EQ(ask_slurm(holder_, self_), HolderFate::unknown);
  self_.slurm_job_id = "78";
  self_.user = 1001;  // whose jobs may be hidden
  EXPECT_EQ(ask_slurm(holder_, self_), HolderFate::unknown);
}

TEST_F(AskSlurmTest, JobIdFromTheFileIsNoOption) {
  commands_.add("squeue", "exit 0");
  EXPECT_EQ(ask_slurm(holder_, self_), HolderFate::gone);
  for (const char* id : {"", "--help", "7 7", "-1", "1234567890123456789"}) {
    holder_.slurm_job_id = id;
    EXPECT_EQ(ask_slurm(holder_, self_), HolderFate::unknown) << id;
  }
}

TEST(AskSlurm, WithoutSqueueNothingIsKnown) {
  const FakeCommands commands;
  LockHolder self = someone();
  self.slurm_job_id = "78";
  EXPECT_EQ(ask_slurm(someone(), self), HolderFate::unknown);
}

TEST(LockText, IsReadBack) {
  const std::string text = to_text({someone(), "0123abcd", 5});
  const auto lock = parse_lock(text);
  ASSERT_TRUE(lock);
  EXPECT_TRUE(lock->holder == someone());
  EXPECT_EQ(lock->token, "0123abcd");
  EXPECT_EQ(lock->counter, 5U);
}

TEST(LockText, KeepsItsSize) {
  const std::string first = to_text({someone(), "t", 0});
  const std::string last = to_text({someone(), "t", UINT64_MAX});
  EXPECT_EQ(first.size(), last.size());
  EXPECT_EQ(parse_lock(last)->counter, UINT64_MAX);
}

TEST(LockText, HostNameThatIsNoTextIsWrittenAndShown) {
  LockHolder holder = someone();
  holder.host = "n\xff\x1b[31m";
  const auto lock = parse_lock(to_text({holder, "t", 0}));
  ASSERT_TRUE(lock);
  const std::string shown = describe(lock->holder);
  EXPECT_THAT(shown, AllOf(HasSubstr("process 123"), HasSubstr("Slurm job '77'")));
  EXPECT_EQ(shown.find('\x1b'), std::string::npos);
}

TEST(LockText, AnythingElseIsNoLock) {
  for (const char* text :
       {"", "{}", "null", "[1]", "{\"host\":1}", "\xff\xfe", "lock",
        R"({"host":"a","boot_id":"b","pid_namespace":"c","pid":1.5,"start_time":1,"user":1,)"
        R"("slurm_cluster":"","slurm_job_id":"","slurm_restart_count":0,"token":"","counter":0})",
        R"({"host":"a","boot_id":"b","pid_namespace":"c","pid":-1,"start_time":1,"user":1,)"
        R"("slurm_cluster":"","slurm_job_id":"","slurm_restart_count":0,"token":"","counter":0})",
        R"({"host":"a","boot_id":"b","pid_namespace":"c","pid":18446744073709551615,)"
        R"("start_time":1,"user":1,"slurm_cluster":"","slurm_job_id":"",)"
        R"("slurm_restart_count":0,"token":"","counter":0})"}) {
    EXPECT_FALSE(parse_lock(text)) << text;
  }
  EXPECT_FALSE(parse_lock(std::string(100'000, '[')));
  EXPECT_FALSE(parse_lock(std::string(16384, '\0')));
}

// Whatever stands in the file: a verdict, and what is taken for a lock can be written again.
TEST(LockText, AnyBytesAreHandled) {
  const LockHolder self = this_process();
  const std::string whole = to_text({self, "0123", 7});
  std::mt19937_64 random(4);
  const auto below = [&](std::size_t bound) { return random() % bound; };
  const std::string special = "{}[]\",:0123456789-.eE\\u \n\xff";
  int locks = 0;
  for (int i = 0; i < 10'000; ++i) {
    std::string bytes = whole;
    for (std::size_t change = 1 + below(3); change > 0; --change) {
      switch (below(4)) {
        case 0:
          bytes.resize(below(bytes.size() + 1));
          break;
        case 1:
          bytes.insert(below(bytes.size() + 1), 1, special[below(special.size())]);
          break;
        case 2:
          if (!bytes.empty()) bytes[below(bytes.size())] = special[below(special.size())];
          break;
        default:
          if (!bytes.empty()) bytes[below(bytes.size())] = static_cast<char>(below(256));
      }
    }
    const auto lock = parse_lock(bytes);
    if (!lock) continue;
    ++locks;
    (void)fate_of(lock->holder, self);
    (void)describe(lock->holder);
    const auto again = parse_lock(to_text(*lock));
    ASSERT_TRUE(again) << bytes;
    EXPECT_EQ(to_text(*again), to_text(*lock));
  }
  EXPECT_GT(locks, 500);
}

}  // namespace
}  // namespace penstock::jobs
