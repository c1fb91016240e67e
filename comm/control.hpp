#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/clock.hpp"

namespace penstock::comm {

struct ControlMessage {
  int from = 0;
  std::vector<std::byte> bytes;
};

// What is known of a member's life. Before the first heartbeat both times are when the control
// channel was made.
struct Pulse {
  Clock::time_point heard;     // the last sign of life
  std::uint64_t progress = 0;  // units of work that it had done then
  Clock::time_point moved;     // when that number last grew
};

// Heartbeats are sent no more often than this.
inline constexpr std::chrono::milliseconds kBeatInterval{500};

// Small host messages between the stages of one pipeline; member i is stage i. Messages of one
// sender arrive in order. Each member is used by one thread.
class Control {
 public:
  virtual ~Control() = default;
  virtual int member() const = 0;
  virtual int size() const = 0;
  // "rank 5, host n042" or "thread 2": who a member is, for messages.
  virtual std::string describe(int member) const = 0;

  // Buffered: returns at once. Any size up to 2^31 - 1 bytes.
  virtual void send(int to, std::span<const std::byte> bytes) = 0;
  // The next message, if one has arrived. Never blocks.
  virtual std::optional<ControlMessage> try_receive() = 0;
  // Lets sends complete; cheap.
  virtual void progress() = 0;

  // A heartbeat: this member is alive and has done `done` more units of work (layers, records,
  // bytes: whatever it is busy with; 0: none). Also takes in the heartbeats of the others. To be
  // called between any two pieces of work, by the member's thread; costs a look at the clock, and
  // some microseconds every kBeatInterval. try_receive and the collectives never see heartbeats.
  virtual void beat(std::uint64_t done) = 0;
  // What beat() and the collectives have heard of a member. Members hear of each other through
  // member 0, so what they know of one another is up to two intervals old, and nothing new comes
  // while member 0 is silent. Of the calling member: what it has said.
  virtual Pulse pulse(int member) const = 0;

  // Collectives over all members: setup and end of a run only. All poll and beat, with a deadline
  // that names who has not come; it starts again whenever a member that has not come makes
  // progress. They must be called by all members in the same order, with no messages under way.
  virtual std::vector<std::string> all_gather(std::string_view bytes, std::string_view what,
                                              std::chrono::milliseconds timeout) = 0;

  // Collective. Returns if all members are ok; else throws AgreeError with the text of the lowest
  // member that is not.
  void agree(bool ok, std::string_view text, std::string_view what,
             std::chrono::milliseconds timeout);
};

}  // namespace penstock::comm
