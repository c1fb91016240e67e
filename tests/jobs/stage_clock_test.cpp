#include "jobs/stage_clock.hpp"

#include <gtest/gtest.h>

namespace penstock::jobs {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(VirtualEdge, LatencyAndBandwidthByHand) {
  VirtualEdge edge({0.001, 1e6});
  EXPECT_EQ(edge.arrival(seconds(1), 5000), seconds(1) + milliseconds(5 + 1));
  // The next begins to leave when the first has left, while that is still on its way.
  EXPECT_EQ(edge.arrival(seconds(1), 2000), seconds(1) + milliseconds(5 + 2 + 1));
  EXPECT_EQ(edge.arrival(seconds(1) + milliseconds(6), 0), seconds(1) + milliseconds(7 + 1));
  EXPECT_EQ(edge.arrival(seconds(2), 1000), seconds(2) + milliseconds(1 + 1));
}

TEST(VirtualEdge, WithoutALimit) {
  VirtualEdge edge({0.0001, 0});
  EXPECT_EQ(edge.arrival(seconds(1), 1e12), seconds(1) + microseconds(100));
}

TEST(StageClock, ARehearsalBeginsAtNothingAndOnlyGoesForward) {
  StageClock clock(StageClock::Kind::rehearsal, {0.001, 1e6}, {0.002, 0});
  EXPECT_EQ(clock.now(), seconds(0));
  clock.advance_to(seconds(3));
  clock.advance_to(seconds(2));
  EXPECT_EQ(clock.now(), seconds(3));
  EXPECT_EQ(clock.control_arrival(), seconds(3) + milliseconds(2));
  EXPECT_EQ(clock.activations_arrival(4000), seconds(3) + milliseconds(4 + 1));
  EXPECT_EQ(clock.activations_arrival(4000), seconds(3) + milliseconds(8 + 1));
  EXPECT_EQ(clock.now(), seconds(3));
}

TEST(StageClock, RealTimeIsTheSteadyClocks) {
  StageClock real;
  const Ledger::Time before = steady_now();
  const Ledger::Time now = real.now();
  EXPECT_LE(before, now);
  EXPECT_LE(now, steady_now());
  EXPECT_EQ(real.control_arrival(), Ledger::Time{});
  EXPECT_EQ(real.activations_arrival(1e9), Ledger::Time{});
  StageClock realtime(StageClock::Kind::realtime, {100, 0}, {50, 0});
  EXPECT_GE(realtime.control_arrival(), steady_now() + seconds(49));
  EXPECT_GE(realtime.activations_arrival(0), steady_now() + seconds(99));
}

}  // namespace
}  // namespace penstock::jobs
