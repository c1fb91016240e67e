#include "comm/watchdog.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

namespace penstock::comm {
namespace {

using std::chrono::seconds;
using Kind = Complaint::Kind;

constexpr seconds kTimeout{120};

Clock::time_point at(double s) {
  return Clock::time_point(seconds(1000)) +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

// Says of everybody what the test tells it; nothing else works.
class FakeControl final : public Control {
 public:
  FakeControl(int members, int member)
      : member_(member), pulses(static_cast<std::size_t>(members), Pulse{at(0), 0, at(0)}) {}
  int member() const override { return member_; }
  int size() const override { return static_cast<int>(pulses.size()); }
  Pulse pulse(int member) const override { return pulses.at(static_cast<std::size_t>(member)); }
  std::string describe(int) const override { throw std::logic_error("not needed"); }
  void send(int, std::span<const std::byte>) override { throw std::logic_error("not needed"); }
  std::optional<ControlMessage> try_receive() override { throw std::logic_error("not needed"); }
  void progress() override { throw std::logic_error("not needed"); }
  void beat(std::uint64_t) override { throw std::logic_error("not needed"); }
  std::vector<std::string> all_gather(std::string_view, std::string_view,
                                      std::chrono::milliseconds) override {
    throw std::logic_error("not needed");
  }

 private:
  int member_;

 public:
  std::vector<Pulse> pulses;
};

struct Outcome {
  double at_s = 0;
  std::optional<Complaint> complaint;
};

// A wait from 0 to `until` s, in rounds of 0.1 s; `live` moves the pulses along before each.
Outcome wait_for(FakeControl& control, double until, const std::function<void(double)>& live,
                 seconds grace = seconds(0)) {
  Watchdog watchdog(control, kTimeout, grace, at(0));
  for (int round = 0; round <= static_cast<int>(until * 10); ++round) {
    const double now = round / 10.0;
    live(now);
    if (auto complaint = watchdog.look(at(now))) return {now, complaint};
  }
  return {until, std::nullopt};
}

TEST(Watchdog, SlowIsNotDead) {
  FakeControl control(3, 0);
  const Outcome outcome = wait_for(control, 10000, [&](double now) {
    for (Pulse& pulse : control.pulses) pulse.heard = at(now);
    // Somebody reads a record, a layer, a block of weights every 100 s.
    if (static_cast<int>(now) % 100 == 0) control.pulses[2].moved = at(now);
  });
  EXPECT_FALSE(outcome.complaint);
}

TEST(Watchdog, NamesTheSilentOneThoughOthersWork) {
  for (const int dead : {1, 2}) {
    FakeControl control(3, 0);
    const Outcome outcome = wait_for(control, 1000, [&](double now) {
      for (int i = 0; i < 3; ++i) {
        if (i == dead && now > 7) continue;
        control.pulses[static_cast<std::size_t>(i)] = {at(now), 1, at(now)};
      }
    });
    ASSERT_TRUE(outcome.complaint);
    EXPECT_EQ(outcome.complaint->kind, Kind::silent);
    EXPECT_EQ(outcome.complaint->member, dead);
    EXPECT_NEAR(outcome.at_s, 127, 0.3);
  }
}

TEST(Watchdog, OthersJudgeTheFirstThemselves) {
  FakeControl control(3, 1);
  const Outcome outcome = wait_for(control, 1000, [&](double now) {
    control.pulses[1] = {at(now), 1, at(now)};
    // Nothing comes of the third either, when the first is silent.
    if (now <= 7) control.pulses[0] = control.pulses[2] = {at(now), 1, at(now)};
  });
  ASSERT_TRUE(outcome.complaint);
  EXPECT_EQ(outcome.complaint->kind, Kind::silent);
  EXPECT_EQ(outcome.complaint->member, 0);
  EXPECT_NEAR(outcome.at_s, 127, 0.3);
}

TEST(Watchdog, WhoKnowsByHearsayLeavesTheWordToTheFirst) {
  FakeControl control(3, 1);
  const Outcome outcome = wait_for(control, 1000, [&](double now) {
    control.pulses[0] = control.pulses[1] = {at(now), 1, at(now)};
  });
  ASSERT_TRUE(outcome.complaint);
  EXPECT_EQ(outcome.complaint->member, 2);
  EXPECT_GE(outcome.at_s, 121);
  EXPECT_LE(outcome.at_s, 125);
}

TEST(Watchdog, StandstillOfAllIsACause) {
  FakeControl control(3, 2);
  const Outcome outcome = wait_for(control, 1000, [&](double now) {
    for (Pulse& pulse : control.pulses) pulse.heard = at(now);
    control.pulses[1].moved = at(std::min(now, 30.0));
  });
  ASSERT_TRUE(outcome.complaint);
  EXPECT_EQ(outcome.complaint->kind, Kind::still);
  EXPECT_EQ(outcome.complaint->member, 1);  // moved last
  EXPECT_NEAR(outcome.at_s, 150, 0.3);
}

TEST(Watchdog, StandstillIsThatOfTheSilentOne) {
  for (const int self : {0, 1}) {
    FakeControl control(3, self);
    const Outcome outcome = wait_for(control, 1000, [&](double now) {
      // It falls silent a little later than the last work is done.
      for (int i = 0; i < 3; ++i) {
        if (i != 2 || now < 20) control.pulses[static_cast<std::size_t>(i)].heard = at(now);
      }
    });
    ASSERT_TRUE(outcome.complaint);
    EXPECT_EQ(outcome.complaint->kind, Kind::silent);
    EXPECT_EQ(outcome.complaint->member, 2);
    EXPECT_LE(outcome.at_s, 145);
  }
}

TEST(Watchdog, OwnWorkIsProgressToo) {
  FakeControl control(2, 1);
  const Outcome outcome = wait_for(control, 1000, [&](double now) {
    control.pulses[0].heard = at(now);
    control.pulses[1].moved = at(now);
  });
  EXPECT_FALSE(outcome.complaint);
}

TEST(Watchdog, GracePutsOffStandstillOnly) {
  FakeControl still(2, 1);
  const Outcome late = wait_for(
      still, 1000, [&](double now) { still.pulses[0].heard = at(now); }, seconds(2));
  EXPECT_NEAR(late.at_s, 122, 0.3);
  FakeControl silent(2, 1);
  const Outcome prompt = wait_for(
      silent, 1000, [](double) {}, seconds(2));
  EXPECT_NEAR(prompt.at_s, 120, 0.3);
}

TEST(Watchdog, AloneOnlyStandstillCounts) {
  FakeControl control(1, 0);
  const Outcome outcome = wait_for(control, 1000, [](double) {});
  ASSERT_TRUE(outcome.complaint);
  EXPECT_EQ(outcome.complaint->kind, Kind::still);
}

// A process that was stopped for longer than the time-out finds everything old.
TEST(Watchdog, OwnAbsenceIsNoComplaint) {
  FakeControl control(3, 0);
  for (Pulse& pulse : control.pulses) pulse = {at(10), 1, at(10)};
  Watchdog watchdog(control, kTimeout, seconds(0), at(0));
  for (double now = 0; now < 10; now += 0.1) ASSERT_FALSE(watchdog.look(at(now)));
  double now = 1000;
  EXPECT_FALSE(watchdog.look(at(now)));
  // From then on as ever.
  std::optional<Complaint> complaint;
  for (; !complaint && now < 2000; now += 0.1) complaint = watchdog.look(at(now));
  ASSERT_TRUE(complaint);
  EXPECT_NEAR(now, 1120, 0.5);
}

TEST(Watchdog, KnowsWhoIsMostSilent) {
  FakeControl control(4, 0);
  wait_for(control, 60, [&](double now) {
    control.pulses[1].heard = at(now);
    control.pulses[2].heard = at(std::min(now, 20.0));
    control.pulses[3].heard = at(std::min(now, 40.0));
  });
  Watchdog watchdog(control, kTimeout, seconds(0), at(0));
  watchdog.look(at(10));
  watchdog.look(at(25));
  watchdog.look(at(50));
  EXPECT_EQ(watchdog.most_silent().member, 2);
  EXPECT_EQ(watchdog.most_silent().age, seconds(30));
}

}  // namespace
}  // namespace penstock::comm
