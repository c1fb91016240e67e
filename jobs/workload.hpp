#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "jobs/job_clock.hpp"
#include "jobs/ledger.hpp"
#include "jobs/scheduler.hpp"
#include "jobs/stop_signals.hpp"

namespace penstock::jobs {

// Where a driver's records come from and where their tokens go. Used by the driver's thread.
class Workload {
 public:
  virtual ~Workload() = default;
  // Called first, with the driver's clock, which may be that of a rehearsal.
  virtual void begin(std::function<Ledger::Time()> /*now*/) {}
  // The next record; empty: there are no more. One with an empty prompt needs no computing: ask
  // again.
  virtual std::optional<Work> next() = 0;
  // A token of a record's answer. True: the answer is complete with it.
  virtual bool accept(std::uint64_t record, std::int32_t token) = 0;
  // The record cannot be computed.
  virtual void reject(std::uint64_t record, const std::string& reason) = 0;
  // Asked before each step: whether more records are to be admitted, only those in flight go on, or
  // all stops here. `needed_seconds` predicts how long those in flight still need.
  virtual Pace pace(const std::function<double()>& /*needed_seconds*/) { return Pace::admit; }
  // Another stage was told to stop.
  virtual void stop_requested(StopRequest /*request*/) {}
  // Called often: in all waits of the driver and between its layers.
  virtual void poll() {}
  // Asked after each step: true has every stage note its ledger at this point of the schedule.
  virtual bool mark_due() { return false; }
  // Called after each step, with the share of compute of each stage lately.
  virtual void step_done(const std::vector<double>& busy) = 0;
};

}  // namespace penstock::jobs
