#include "jobs/command.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/fake_commands.hpp"
#include "tests/support/temporary_folder.hpp"

namespace penstock::jobs {
namespace {

using namespace std::chrono_literals;
using tests::FakeCommands;
using tests::Variable;

constexpr std::chrono::milliseconds kLong = 60s;

TEST(Command, GivesBackWhatItPrintsAndItsStatus) {
  const auto result =
      run_command({"sh", "-c", "echo out; echo err >&2; cat; exit 7"}, kLong);  // cat: no input
  ASSERT_TRUE(result);
  EXPECT_EQ(result->out, "out\n");
  EXPECT_EQ(result->err, "err\n");
  EXPECT_EQ(result->exit_status, 7);
}

TEST(Command, ArgumentsAreNotTakenApart) {
  const auto result = run_command({"printf", "%s|", "a b", "$(id)", "; true", ""}, kLong);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->out, "a b|$(id)|; true||");
}

TEST(Command, IsFoundByPathOnly) {
  const FakeCommands commands;
  commands.add("penstock_fake", "echo fake");
  ASSERT_TRUE(run_command({"penstock_fake"}, kLong));
  EXPECT_FALSE(run_command({"penstock_absent"}, kLong));
  EXPECT_FALSE(run_command({}, kLong));
}

TEST(Command, EnvironmentIsOursWithSomeReplaced) {
  const Variable kept("PENSTOCK_TEST_KEPT", "1");
  const Variable replaced("PENSTOCK_TEST_REPLACED", "2");
  const Variable longer("PENSTOCK_TEST_REPLACED_TOO", "3");
  const auto result = run_command(
      {"sh", "-c", "echo $PENSTOCK_TEST_KEPT $PENSTOCK_TEST_REPLACED $PENSTOCK_TEST_REPLACED_TOO"},
      kLong, {"PENSTOCK_TEST_REPLACED=new"});
  ASSERT_TRUE(result);
  EXPECT_EQ(result->out, "1 new 3\n");
}

// A process that nobody has waited for counts as ended.
bool is_running(int process) {
  std::ifstream stat("/proc/" + std::to_string(process) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(stat), {}};
  return !text.empty() && text.substr(text.rfind(')')).substr(0, 3) != ") Z";
}

TEST(Command, ThatDoesNotEndIsKilledWithWhatItStarted) {
  const tests::TemporaryFolder folder;
  const std::string script = "sleep 1000 & echo $! > " + (folder / "child") + "; wait";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(run_command({"sh", "-c", script}, 2s));
  EXPECT_LT(std::chrono::steady_clock::now() - start, 500s);
  const int child = std::stoi(folder.read("child"));
  for (int i = 0; is_running(child) && i < 2000; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_FALSE(is_running(child));
}

TEST(Command, ThatEndsWhileItsChildHoldsThePipeIsNotWaitedForLonger) {
  const auto result = run_command({"sh", "-c", "sleep 30 & echo $!"}, 600s);
  ASSERT_TRUE(result);
  const int child = std::stoi(result->out);
  EXPECT_EQ(kill(child, SIGKILL), 0);  // it is still there
}

TEST(Command, EndedByASignalGivesNothing) {
  EXPECT_FALSE(run_command({"sh", "-c", "kill -9 $$"}, kLong));
}

TEST(Command, MuchOutputIsCutAndDoesNotBlock) {
  const auto result = run_command({"sh", "-c", "head -c 1000000 /dev/zero"}, kLong);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->out.size(), 65536U);
  EXPECT_EQ(result->exit_status, 0);
}

TEST(Command, StartsWithoutOurSignalSettings) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const auto old = signal(SIGUSR1, SIG_IGN);
  const auto result = run_command({"sh", "-c", "kill -USR1 $$; echo survived"}, kLong);
  signal(SIGUSR1, old);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_FALSE(result);
}

}  // namespace
}  // namespace penstock::jobs
