#include "comm/pulse_table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "comm/error.hpp"

namespace penstock::comm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// All members' clocks start elsewhere: only ages may travel.
Clock::time_point at(int member, milliseconds since_start) {
  return Clock::time_point(seconds(1000 + 7777 * member)) + since_start;
}

void deliver(const PulseTable& from_table, int from, PulseTable& to_table, int to,
             milliseconds when) {
  for (const std::vector<std::byte>& piece : from_table.heartbeats(at(from, when))) {
    to_table.take(from, piece, at(to, when));
  }
}

TEST(PulseTable, BeforeTheFirstHeartbeatEverybodyWasJustSeen) {
  const PulseTable table(3, 1, at(1, seconds(5)));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(table.of(i).heard, at(1, seconds(5)));
    EXPECT_EQ(table.of(i).moved, at(1, seconds(5)));
    EXPECT_EQ(table.of(i).progress, 0U);
  }
}

TEST(PulseTable, OwnWorkMovesAndMereLifeDoesNot) {
  PulseTable table(2, 1, at(1, seconds(0)));
  table.note_own(5, at(1, seconds(1)));
  table.note_own(0, at(1, seconds(3)));
  EXPECT_EQ(table.of(1).progress, 5U);
  EXPECT_EQ(table.of(1).moved, at(1, seconds(1)));
  EXPECT_EQ(table.of(1).heard, at(1, seconds(3)));
}

TEST(PulseTable, MembersTellTheFirstAndTheFirstTellsAll) {
  PulseTable first(3, 0, at(0, seconds(0)));
  PulseTable second(3, 1, at(1, seconds(0)));
  PulseTable third(3, 2, at(2, seconds(0)));
  second.note_own(40, at(1, seconds(2)));
  second.note_own(0, at(1, seconds(10)));
  deliver(second, 1, first, 0, seconds(10));
  EXPECT_EQ(first.of(1).progress, 40U);
  EXPECT_EQ(first.of(1).heard, at(0, seconds(10)));
  EXPECT_EQ(first.of(1).moved, at(0, seconds(2)));
  EXPECT_EQ(first.of(2).heard, at(0, seconds(0)));

  first.note_own(7, at(0, seconds(11)));
  deliver(first, 0, third, 2, seconds(15));
  EXPECT_EQ(third.of(0).heard, at(2, seconds(15)));
  EXPECT_EQ(third.of(0).progress, 7U);
  EXPECT_EQ(third.of(0).moved, at(2, seconds(11)));
  EXPECT_EQ(third.of(1).heard, at(2, seconds(10)));
  EXPECT_EQ(third.of(1).progress, 40U);
  EXPECT_EQ(third.of(1).moved, at(2, seconds(2)));
  // What the first has not heard of the third for is the third's own affair.
  EXPECT_EQ(third.of(2).heard, at(2, seconds(0)));
}

TEST(PulseTable, WhatComesLateMakesNobodyOlder) {
  PulseTable first(3, 0, at(0, seconds(0)));
  PulseTable second(3, 1, at(1, seconds(0)));
  PulseTable third(3, 2, at(2, seconds(0)));
  third.note_own(1, at(2, seconds(9)));
  deliver(third, 2, first, 0, seconds(9));
  const auto later = first.heartbeats(at(0, seconds(10)));
  deliver(first, 0, second, 1, seconds(9));
  second.take(0, later[0], at(1, milliseconds(9999)));  // faster than the one before
  EXPECT_EQ(second.of(0).heard, at(1, milliseconds(9999)));
  EXPECT_EQ(second.of(2).heard, at(1, seconds(9)));
  EXPECT_EQ(second.of(2).moved, at(1, seconds(9)));
}

TEST(PulseTable, ManyMembersAreToldInPiecesThatMpiSendsAtOnce) {
  constexpr int kMembers = 200;
  PulseTable first(kMembers, 0, at(0, seconds(0)));
  const int end = kMembers - 1;
  PulseTable last(kMembers, end, at(end, seconds(0)));
  for (int i = 1; i < kMembers; ++i) {
    PulseTable member(kMembers, i, at(i, seconds(0)));
    member.note_own(static_cast<std::uint64_t>(1000 + i), at(i, milliseconds(i)));
    deliver(member, i, first, 0, seconds(1));
  }
  const auto pieces = first.heartbeats(at(0, seconds(2)));
  EXPECT_EQ(pieces.size(), 4U);  // of at most 64 members
  for (const auto& piece : pieces) {
    EXPECT_LE(piece.size(), 1100U);
    last.take(0, piece, at(end, seconds(2)));
  }
  for (int i = 1; i < end; ++i) {
    EXPECT_EQ(last.of(i).progress, static_cast<std::uint64_t>(1000 + i));
    EXPECT_EQ(last.of(i).moved, at(end, milliseconds(i)));
    EXPECT_EQ(last.of(i).heard, at(end, seconds(1)));
  }
}

TEST(PulseTable, WhatIsNoHeartbeatIsRefused) {
  PulseTable table(3, 0, at(0, seconds(0)));
  const auto good = PulseTable(3, 1, at(1, seconds(0))).heartbeats(at(1, seconds(1)))[0];
  const auto of_all = table.heartbeats(at(0, seconds(1)))[0];
  EXPECT_NO_THROW(table.take(1, good, at(0, seconds(1))));
  EXPECT_THROW(table.take(2, good, at(0, seconds(1))), CommError);    // of another
  EXPECT_THROW(table.take(1, of_all, at(0, seconds(1))), CommError);  // only the first may
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_THROW(table.take(1, std::span(good).first(size), at(0, seconds(1))), CommError) << size;
  }
  PulseTable small(2, 1, at(1, seconds(0)));
  EXPECT_THROW(small.take(0, of_all, at(1, seconds(1))), CommError);  // more than there are
  for (const std::uint64_t first : {std::uint64_t{3}, UINT64_MAX, UINT64_MAX - 1}) {
    std::vector<std::byte> far = of_all;
    std::memcpy(far.data(), &first, sizeof first);
    EXPECT_THROW(PulseTable(3, 1, at(1, seconds(0))).take(0, far, at(1, seconds(1))), CommError);
  }
}

}  // namespace
}  // namespace penstock::comm
