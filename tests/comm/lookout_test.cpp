#include "comm/lookout.hpp"

#include <gtest/gtest.h>

namespace penstock::comm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Time of a test: seconds since its start.
Clock::time_point at(double s) {
  return Clock::time_point(seconds(1000)) +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

void watch(Lookout& lookout, double from, double until) {
  for (double s = from; s <= until; s += 0.1) lookout.look(at(s));
  lookout.look(at(until));
}

TEST(Lookout, CountsAgesFromTheEvent) {
  Lookout lookout(seconds(120), at(0));
  watch(lookout, 0, 50);
  EXPECT_EQ(lookout.age(at(20)), seconds(30));
}

TEST(Lookout, NoAgeIsOlderThanTheWait) {
  Lookout lookout(seconds(120), at(10));
  watch(lookout, 10, 50);
  EXPECT_EQ(lookout.age(at(2)), seconds(40));
}

TEST(Lookout, WhatHappenedAfterTheLastLookIsNotOld) {
  Lookout lookout(seconds(120), at(0));
  watch(lookout, 0, 5);
  EXPECT_LE(lookout.age(at(6)), seconds(0));
}

TEST(Lookout, OwnAbsenceIsNobodysFault) {
  Lookout lookout(seconds(120), at(0));
  watch(lookout, 0, 10);
  lookout.look(at(510));  // stopped for longer than the time-out
  EXPECT_EQ(lookout.age(at(5)), seconds(0));
  watch(lookout, 510, 540);
  EXPECT_EQ(lookout.age(at(5)), seconds(30));
}

TEST(Lookout, ShortGapsCount) {
  // A quarter of the time-out, but a second at least.
  Lookout lookout(seconds(120), at(0));
  lookout.look(at(29));
  lookout.look(at(58));
  EXPECT_EQ(lookout.age(at(0)), seconds(58));
  Lookout hasty(milliseconds(20), at(0));
  hasty.look(at(0.9));
  EXPECT_EQ(hasty.age(at(0)), milliseconds(900));
}

}  // namespace
}  // namespace penstock::comm
