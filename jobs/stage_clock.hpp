#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "jobs/ledger.hpp"

// The time by which a stage works: real, or that of a rehearsal with virtual devices.
namespace penstock::jobs {

// How fast messages travel.
struct LinkModel {
  double latency_seconds = 0;
  double bytes_per_second = 0;  // 0: no limit
};

inline Ledger::Time steady_now() {
  return std::chrono::duration_cast<Ledger::Time>(
      std::chrono::steady_clock::now().time_since_epoch());
}

// A century at most, so that sums of what hostile figures say stay numbers.
inline Ledger::Time from_seconds(double seconds) {
  constexpr double kMost = 3e9;
  return std::chrono::duration_cast<Ledger::Time>(
      std::chrono::duration<double>(std::min(seconds, kMost)));
}

// One direction of an edge of the pipeline: a message begins to leave when the one before it has
// left; their latencies overlap.
class VirtualEdge {
 public:
  explicit VirtualEdge(const LinkModel& model) : model_(model) {}
  // When a message that is ready to leave at `ready`, not before the last one was, has arrived.
  Ledger::Time arrival(Ledger::Time ready, double bytes);

 private:
  LinkModel model_;
  Ledger::Time free_{};
};

// Used by the stage's thread.
//
// In a rehearsal messages carry the time at which they arrive, stages take the time that the
// described device would, and whatever the rehearsing machine itself takes counts for nothing. Each
// stage has a clock of its own, which begins at 0; nothing sleeps. `realtime` does sleep: arrivals
// are times of the steady clock then, so all stages must be on one host.
class StageClock {
 public:
  enum class Kind { real, rehearsal, realtime };

  StageClock() = default;  // real
  // `activations` lead to the next stage, `control` between driver and stages.
  StageClock(Kind kind, const LinkModel& activations, const LinkModel& control)
      : kind_(kind), edge_(activations), control_(control) {}

  Kind kind() const { return kind_; }
  Ledger::Time now() const { return kind_ == Kind::rehearsal ? now_ : steady_now(); }
  // Rehearsals only; the past changes nothing.
  void advance_to(Ledger::Time time);

  // When messages that are sent now arrive; 0 where time is real.
  Ledger::Time control_arrival() const;
  Ledger::Time activations_arrival(double bytes);

 private:
  Kind kind_ = Kind::real;
  VirtualEdge edge_{{}};
  LinkModel control_;
  Ledger::Time now_{};
};

}  // namespace penstock::jobs
