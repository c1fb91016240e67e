#pragma once

#include <chrono>
#include <optional>

#include "comm/control.hpp"
#include "comm/lookout.hpp"

namespace penstock::comm {

// Why a wait is hopeless.
struct Complaint {
  enum class Kind { silent, still };
  Kind kind = Kind::silent;
  int member = 0;         // silent: nothing was heard of it; still: the one that moved last
  Clock::duration age{};  // since then, as far as this process looked
};

// Judges by heartbeats whether a pipeline's member may go on waiting: slow is not dead. A member
// that is silent for the time-out, or standstill of all, who are alive, for that long, ends the
// wait. Member 0 judges all by their own word. The others judge it so, and the rest by its word,
// later than it does, since who knows at first hand is to tell.
class Watchdog {
 public:
  // For one wait, which begins `now`. `grace`: how much later than others this wait complains of a
  // standstill.
  Watchdog(const Control& control, std::chrono::milliseconds timeout,
           std::chrono::milliseconds grace, Clock::time_point now);

  // To be called in each round, after Control::beat(); looks every kBeatInterval / 10.
  std::optional<Complaint> look(Clock::time_point now);

  // The member that was silent for longest at the last look, and for how long.
  Complaint most_silent() const { return most_silent_; }

 private:
  std::optional<Complaint> judge();

  const Control& control_;
  std::chrono::milliseconds timeout_;
  std::chrono::milliseconds grace_;
  Lookout lookout_;
  Clock::time_point next_;
  Complaint most_silent_;
};

}  // namespace penstock::comm
