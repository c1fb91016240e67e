#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "jobs/pipeline.hpp"
#include "jobs/stage_clock.hpp"
#include "jobs/workload.hpp"
#include "model/step_cost.hpp"

// A run of a pipeline without the pipeline: driver and scheduler are the real ones, the other
// stages are arithmetic. The outcome is that of a rehearsal with virtual devices of the same costs
// and links, to the nanosecond, in a fraction of the time.
namespace penstock::jobs {

struct ReplayStage {
  model::StepCost cost;
  LinkModel next;  // to the next stage; unused on the last
};

// What is replayed.
struct ReplayPipeline {
  std::vector<ReplayStage> stages;  // at least one
  LinkModel control;                // between driver and stages
  double activation_row_bytes = 0;  // that travel between stages
  SchedulerLimits limits;
  model::StepCost planning_cost;  // by which the scheduler plans: of the slowest stage
};

// A step, for those who want to see each.
struct ReplayStep {
  const model::StepPlan& plan;
  const model::StepShape& shape;
  Ledger::Time planned;                  // by the driver's clock
  std::span<const Ledger::Time> begins;  // by stage
  std::span<const Ledger::Time> ends;
  Ledger::Time back;  // when its tokens are with the driver
};
using ReplayObserver = std::function<void(const ReplayStep&)>;

// Replays until the workload is through or its pace says to stop. Workload::step_done() is told of
// no shares. All tokens are 0. Throws as run_driver() does, but for what the stages bring about.
PipelineTotals replay(const ReplayPipeline& pipeline, Workload& workload,
                      const ReplayObserver& observer = {});

// Replays each of `replicas` pipelines, alone, on `threads` threads: `workload(replica)` makes a
// pipeline's work, when its turn comes and on its thread. By replica.
std::vector<PipelineTotals> replay_replicas(
    const ReplayPipeline& pipeline, std::uint32_t replicas, int threads,
    const std::function<std::unique_ptr<Workload>(std::uint32_t replica)>& workload);

// A record as it will turn out.
struct ReplayRecord {
  std::uint32_t prompt_tokens = 1;
  std::uint32_t answer_tokens = 1;  // that it will have, at least 1
  std::uint32_t max_tokens = 1;     // what is known of that beforehand
  // Of its line, by which a run orders it; 0: there is none.
  std::uint32_t line_bytes = 0;
  std::uint32_t prefix_hash = 0;
};

// Records of known lengths, in the order in which `next` gives them. Keeps some bytes for each.
class ReplayWorkload : public Workload {
 public:
  explicit ReplayWorkload(std::function<std::optional<ReplayRecord>()> next);

  std::optional<Work> next() override;
  bool accept(std::uint64_t record, std::int32_t token) override;
  void reject(std::uint64_t record, const std::string& reason) override;
  void step_done(const std::vector<double>&) override {}

  std::uint64_t rejected() const { return rejected_; }

 private:
  std::function<std::optional<ReplayRecord>()> next_;
  std::vector<std::uint32_t> left_;  // tokens to come, by record
  std::uint64_t rejected_ = 0;
};

}  // namespace penstock::jobs
