#include "comm/watchdog.hpp"

#include <algorithm>

namespace penstock::comm {
namespace {

// Time for the one that knows at first hand to tell, and for that to end all ranks.
constexpr std::chrono::seconds kHearsay{2};

}  // namespace

Watchdog::Watchdog(const Control& control, std::chrono::milliseconds timeout,
                   std::chrono::milliseconds grace, Clock::time_point now)
    : control_(control), timeout_(timeout), grace_(grace), lookout_(timeout, now), next_(now) {}

std::optional<Complaint> Watchdog::look(Clock::time_point now) {
  lookout_.look(now);
  if (now < next_) return std::nullopt;
  next_ = now + kBeatInterval / 10;
  return judge();
}

std::optional<Complaint> Watchdog::judge() {
  const int self = control_.member();
  Complaint last_moved{Complaint::Kind::still, self, lookout_.age(control_.pulse(self).moved)};
  most_silent_ = {};
  for (int i = 0; i < control_.size(); ++i) {
    if (i == self) continue;
    const Pulse pulse = control_.pulse(i);
    const Clock::duration silent = lookout_.age(pulse.heard);
    if (silent > most_silent_.age) most_silent_ = {Complaint::Kind::silent, i, silent};
    const bool first_hand = self == 0 || i == 0;
    if (silent >= (first_hand ? timeout_ : timeout_ + kHearsay)) {
      return Complaint{Complaint::Kind::silent, i, silent};
    }
    const Clock::duration still = lookout_.age(pulse.moved);
    if (still < last_moved.age) last_moved = {Complaint::Kind::still, i, still};
  }
  // Where one falls silent all come to a standstill: it is the cause, and its own time runs.
  if (most_silent_.age >= timeout_ / 2) return std::nullopt;
  if (last_moved.age >= timeout_ + grace_) return last_moved;
  return std::nullopt;
}

}  // namespace penstock::comm
