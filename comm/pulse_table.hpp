#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/control.hpp"

namespace penstock::comm {

// What a member knows of the lives of all, and the heartbeats that tell it: each member tells
// member 0 of itself, member 0 tells everybody of all. Ages travel, not times: clocks differ.
class PulseTable {
 public:
  PulseTable(int members, int member, Clock::time_point now);

  const Pulse& of(int member) const { return pulses_[static_cast<std::size_t>(member)]; }

  // The member itself has done `done` more units of work.
  void note_own(std::uint64_t done, Clock::time_point now);

  // What is to be sent now, by a member to member 0, by member 0 to all others. In pieces small
  // enough for MPI to send at once, whether or not the receiver is there.
  std::vector<std::vector<std::byte>> heartbeats(Clock::time_point now) const;

  // Throws CommError for what is no heartbeat of that member's.
  void take(int from, std::span<const std::byte> heartbeat, Clock::time_point now);

 private:
  struct Entry;
  Entry entry_of(int member, Clock::time_point now) const;

  int member_;
  std::vector<Pulse> pulses_;  // [members]
};

}  // namespace penstock::comm
