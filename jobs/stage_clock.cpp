#include "jobs/stage_clock.hpp"

#include <algorithm>

namespace penstock::jobs {

Ledger::Time VirtualEdge::arrival(Ledger::Time ready, double bytes) {
  free_ = std::max(free_, ready);
  if (model_.bytes_per_second > 0) free_ += from_seconds(bytes / model_.bytes_per_second);
  return free_ + from_seconds(model_.latency_seconds);
}

void StageClock::advance_to(Ledger::Time time) { now_ = std::max(now_, time); }

Ledger::Time StageClock::control_arrival() const {
  return kind_ == Kind::real ? Ledger::Time{} : now() + from_seconds(control_.latency_seconds);
}

Ledger::Time StageClock::activations_arrival(double bytes) {
  return kind_ == Kind::real ? Ledger::Time{} : edge_.arrival(now(), bytes);
}

}  // namespace penstock::jobs
