#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "jobs/job_clock.hpp"
#include "jobs/ledger.hpp"
#include "jobs/scheduler.hpp"
#include "jobs/step_counts.hpp"
#include "jobs/workload.hpp"

namespace penstock::jobs {

// How steps are computed: by the stages of a pipeline, or in a replay by arithmetic.
class StepRunner {
 public:
  virtual ~StepRunner() = default;
  virtual Ledger::Time now() const = 0;
  // Begins a step on all stages. `shape` is the plan's.
  virtual void start(const model::StepPlan& plan, const model::StepShape& shape) = 0;
  // Waits for the ids that the slot's step sampled; they stay until the next wait. `draining`: the
  // pipeline runs empty.
  virtual std::span<const std::int32_t> wait_for_tokens(std::uint32_t slot, bool draining) = 0;
  // The tokens of a step have gone to the workload.
  virtual void step_done() = 0;
  // A record was asked for.
  virtual void record_read() {}
};

// What a driver does, round by round through the slots: tokens back to the workload, records in
// from it, the next step planned. Pure but for what runner and workload do. One thread.
class Rounds {
 public:
  // Runner and workload must outlive this.
  Rounds(const SchedulerLimits& limits, const model::StepCost& cost, StepRunner& runner,
         Workload& workload);

  // Until the workload is through, or its pace says to stop; all steps are complete then.
  void run();

  // Reads records, as many as one turn may. run() does; a runner's start() may too, while the step
  // is computed.
  void refill();

  StepCounts counts() const;

 private:
  // How long a round through all slots takes lately.
  class RoundTimes {
   public:
    // Called for each slot in turn.
    void visit(std::uint32_t slot, Ledger::Time now);
    double seconds() const { return seconds_; }  // 0: not known yet

   private:
    std::optional<Ledger::Time> last_;
    double seconds_ = 0;
  };

  void collect(std::uint32_t slot);
  void keep_pace(std::uint32_t slot);
  void start(std::uint32_t slot);
  bool anything_in_flight() const;
  std::uint64_t kv_tokens() const;

  SchedulerLimits limits_;
  StepRunner& runner_;
  Workload& workload_;
  Scheduler scheduler_;
  RoundTimes rounds_;
  std::uint64_t generated_tokens_ = 0;
  Pace pace_ = Pace::admit;
  std::uint32_t idle_visits_ = 0;
  bool exhausted_ = false;
};

}  // namespace penstock::jobs
