#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/link.hpp"
#include "comm/wait.hpp"
#include "jobs/ledger.hpp"
#include "jobs/scheduler.hpp"
#include "model/stage.hpp"

// One pipeline at work: the driver (stage 0) plans steps, every stage obeys.
namespace penstock::jobs {

// Equal on all stages of a pipeline.
struct PipelineOptions {
  std::uint32_t slots = 1;
  std::uint32_t max_step_tokens = 512;
  std::uint32_t max_sequences = 256;  // of one slot
  std::uint32_t kv_blocks = 0;
  // How long a stage waits for a sign of life from a peer.
  std::chrono::milliseconds peer_timeout{std::chrono::minutes(10)};
};

// Where a driver's records come from and where their tokens go. Used by the driver's thread.
class Workload {
 public:
  virtual ~Workload() = default;
  // The next record; empty: there are no more.
  virtual std::optional<Work> next() = 0;
  // A token of a record's answer. True: the answer is complete with it.
  virtual bool accept(std::uint64_t record, std::int32_t token) = 0;
  // The record cannot be computed.
  virtual void reject(std::uint64_t record, const std::string& reason) = 0;
  // Asked after each step: true has every stage note its ledger at this point of the schedule.
  virtual bool mark_due() { return false; }
  // Called after each step, with the share of compute of each stage lately.
  virtual void step_done(const std::vector<double>& busy) = 0;
};

// What a stage did with its time.
struct StageTimes {
  LedgerTotals totals;
  std::vector<LedgerTotals> marks;  // the ledger at each mark
};

struct PipelineTotals {
  std::uint64_t steps = 0;
  std::uint64_t prompt_tokens = 0;     // rows computed for prompts, evictions' repeats included
  std::uint64_t generated_tokens = 0;  // tokens sampled
  std::uint64_t evictions = 0;
  std::vector<StageTimes> stages;
};

// Runs stage 0 until the workload is through, then stops the other stages.
PipelineTotals run_driver(comm::Endpoint& endpoint, model::Stage& stage,
                          const PipelineOptions& options, const model::StepCost& cost,
                          Workload& workload);

// Runs any other stage until the driver stops it.
void run_stage(comm::Endpoint& endpoint, model::Stage& stage, const PipelineOptions& options);

}  // namespace penstock::jobs
