#pragma once

#include <algorithm>
#include <chrono>

#include "comm/clock.hpp"

namespace penstock::comm {

// How long ago something happened, counted only while this process was there to see what followed:
// one that was stopped (by a signal, a debugger, a virtual machine that moves) must not blame its
// peers for its own absence. What they sent meanwhile is to be taken in before their age is judged.
class Lookout {
 public:
  // `timeout`: what ages are compared with. `now`: when the wait begins; no age is older than that.
  Lookout(std::chrono::milliseconds timeout, Clock::time_point now)
      : longest_gap_(std::max<std::chrono::milliseconds>(timeout / 4, std::chrono::seconds(1))),
        since_(now),
        last_(now) {}

  // To be called in each round of a wait. A round that took so long that the process cannot have
  // been waiting has all ages begin again.
  void look(Clock::time_point now) {
    if (now - last_ > longest_gap_) since_ = now;
    last_ = now;
  }

  // At the last look.
  Clock::duration age(Clock::time_point event) const { return last_ - std::max(event, since_); }

 private:
  std::chrono::milliseconds longest_gap_;
  Clock::time_point since_;
  Clock::time_point last_;
};

}  // namespace penstock::comm
