#include "comm/wait.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "comm/error.hpp"

namespace penstock::comm {
namespace {

using std::chrono::milliseconds;

// Pauses until the deadline and returns the error's words.
std::string pause_until_error(Wait& wait) {
  try {
    for (;;) wait.pause();
  } catch (const CommError& error) {
    return error.what();
  }
}

TEST(Wait, NamesWhatDidNotComeAndHowLongItWaited) {
  Wait wait([] { return std::string("activations for slot 5 from rank 5"); }, milliseconds(30));
  const Clock::time_point start = Clock::now();
  EXPECT_EQ(pause_until_error(wait), "no activations for slot 5 from rank 5 for 0.03 s");
  EXPECT_GE(Clock::now() - start, milliseconds(30));
}

TEST(Wait, AsksForTheNameOnlyAtTheDeadline) {
  int calls = 0;
  Wait wait([&] { return std::to_string(++calls); }, milliseconds(5));
  wait.pause();
  EXPECT_EQ(calls, 0);
  pause_until_error(wait);
  EXPECT_EQ(calls, 1);
}

TEST(Wait, WholeSecondsArePrintedAsSuch) {
  Wait wait([] { return std::string("answer"); }, milliseconds(2000));
  EXPECT_EQ(pause_until_error(wait), "no answer for 2 s");
}

TEST(Wait, DeadlineStartsAgainWithProgress) {
  constexpr milliseconds kTimeout(60);
  Wait wait([] { return std::string("answer"); }, kTimeout);
  const Clock::time_point start = Clock::now();
  Clock::time_point restarted = start;
  while (restarted - start < 3 * kTimeout) {
    // Should this thread not run for so long, the wait would end rightly.
    if (Clock::now() - restarted >= kTimeout / 2) GTEST_SKIP() << "the machine is too busy";
    wait.pause();
    wait.restart();
    restarted = Clock::now();
  }
  EXPECT_EQ(pause_until_error(wait), "no answer for 0.06 s");
  EXPECT_GE(Clock::now() - restarted, kTimeout);
}

TEST(Wait, TimeoutOfNothingFailsAtOnce) {
  Wait wait([] { return std::string("answer"); }, milliseconds(0));
  EXPECT_THROW(wait.pause(), CommError);
}

// A thread that sleeps gives up its core of its own accord; one that yields stays runnable.
long sleeps_in_200_rounds(Wait::Pace pace) {
  const auto given_up = [] {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
  };
  Wait wait([] { return std::string("the GPU"); }, std::chrono::minutes(1), pace);
  const long before = given_up();
  for (int i = 0; i < 200; ++i) wait.pause();
  return given_up() - before;
}

TEST(Wait, OnlyPatientOnesSleepAtFirst) {
  EXPECT_GE(sleeps_in_200_rounds(Wait::Pace::patient), 150);
  EXPECT_LE(sleeps_in_200_rounds(Wait::Pace::prompt), 20);
}

}  // namespace
}  // namespace penstock::comm
