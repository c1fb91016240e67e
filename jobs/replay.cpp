#include "jobs/replay.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include "jobs/rounds.hpp"

namespace penstock::jobs {
namespace {

// A stage and its ledger, which runs `starved` in between, as that of a real stage does.
class StageOnPaper {
 public:
  explicit StageOnPaper(const ReplayStage& stage) : edge_(stage.next) {}

  Ledger::Time now() const { return now_; }
  LedgerTotals totals() const { return ledger_.totals(now_); }

  // The time until then goes to `share`.
  void wait(Share share, Ledger::Time until) {
    if (until <= now_) return;
    ledger_.switch_to(share, now_);
    now_ = until;
    ledger_.switch_to(Share::starved, now_);
  }

  Ledger::Time activations_arrival(double bytes) { return edge_.arrival(now_, bytes); }

  bool draining = false;  // so said the latest plan

 private:
  Ledger::Time now_{};
  Ledger ledger_{Ledger::Time{}};
  VirtualEdge edge_;
};

class Replay : private StepRunner {
 public:
  Replay(const ReplayPipeline& pipeline, Workload& workload, const ReplayObserver& observer)
      : pipeline_(pipeline),
        workload_(workload),
        observer_(observer),
        stages_(pipeline.stages.begin(), pipeline.stages.end()),
        rounds_(pipeline.limits, pipeline.planning_cost, *this, workload),
        slots_(pipeline.limits.slots),
        begins_(pipeline.stages.size()),
        ends_(pipeline.stages.size()),
        tokens_(pipeline.limits.max_step_tokens) {
    totals_.stages.resize(stages_.size());
  }

  PipelineTotals run() {
    rounds_.run();
    totals_.seconds = std::chrono::duration<double>(now()).count();
    for (std::size_t i = 0; i < stages_.size(); ++i) totals_.stages[i].totals = stages_[i].totals();
    static_cast<StepCounts&>(totals_) = rounds_.counts();
    return std::move(totals_);
  }

 private:
  struct Slot {
    std::size_t samples = 0;
    Ledger::Time back{};
  };

  Ledger::Time now() const override { return stages_.front().now(); }

  // The stages pass steps on first in, first out, so each may be told of its end at once.
  void start(const model::StepPlan& plan, const model::StepShape& shape) override {
    const Ledger::Time planned = now();
    const Ledger::Time plan_arrival = planned + from_seconds(pipeline_.control.latency_seconds);
    const double bytes = static_cast<double>(plan.rows()) * pipeline_.activation_row_bytes;
    Ledger::Time activations{};
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      StageOnPaper& stage = stages_[i];
      if (i > 0) {
        stage.wait(stage.draining ? Share::drain : Share::starved, plan_arrival);
        stage.draining = plan.draining;
        stage.wait(Share::wait_upstream, activations);
      }
      begins_[i] = stage.now();
      stage.wait(Share::compute, begins_[i] + computing(i, shape));
      ends_[i] = stage.now();
      if (i + 1 < stages_.size()) activations = stage.activations_arrival(bytes);
    }
    totals_.work = totals_.work + shape;
    totals_.shapes.add(shape);
    Slot& slot = slots_[plan.slot];
    slot.samples = shape.sampled;
    slot.back = ends_.back();
    if (stages_.size() > 1) slot.back += from_seconds(pipeline_.control.latency_seconds);
    if (observer_) observer_({plan, shape, planned, begins_, ends_, slot.back});
  }

  // Neighbours are mostly alike.
  Ledger::Time computing(std::size_t stage, const model::StepShape& shape) {
    const model::StepCost& cost = pipeline_.stages[stage].cost;
    if (stage == 0 || cost != pipeline_.stages[stage - 1].cost) {
      latest_ = from_seconds(cost.seconds(shape));
    }
    return latest_;
  }

  std::span<const std::int32_t> wait_for_tokens(std::uint32_t slot, bool draining) override {
    stages_.front().wait(draining ? Share::drain : Share::wait_downstream, slots_[slot].back);
    return std::span(tokens_).first(slots_[slot].samples);
  }

  void step_done() override {
    if (workload_.mark_due()) {
      for (std::size_t i = 0; i < stages_.size(); ++i) {
        totals_.stages[i].marks.push_back(stages_[i].totals());
      }
    }
    workload_.step_done({});
  }

  const ReplayPipeline& pipeline_;
  Workload& workload_;
  const ReplayObserver& observer_;
  std::vector<StageOnPaper> stages_;
  Rounds rounds_;
  std::vector<Slot> slots_;
  std::vector<Ledger::Time> begins_;  // of the latest step, by stage
  std::vector<Ledger::Time> ends_;
  std::vector<std::int32_t> tokens_;  // zeros
  Ledger::Time latest_{};
  PipelineTotals totals_;
};

}  // namespace

PipelineTotals replay(const ReplayPipeline& pipeline, Workload& workload,
                      const ReplayObserver& observer) {
  if (pipeline.stages.empty()) throw std::invalid_argument("a replay needs a stage");
  return Replay(pipeline, workload, observer).run();
}

std::vector<PipelineTotals> replay_replicas(
    const ReplayPipeline& pipeline, std::uint32_t replicas, int threads,
    const std::function<std::unique_ptr<Workload>(std::uint32_t replica)>& workload) {
  std::vector<PipelineTotals> totals(replicas);
  std::atomic<std::uint32_t> next = 0;
  std::exception_ptr failure;
  std::mutex failing;
  const auto work = [&] {
    try {
      for (std::uint32_t replica = next++; replica < replicas; replica = next++) {
        totals[replica] = replay(pipeline, *workload(replica));
      }
    } catch (...) {
      const std::lock_guard lock(failing);
      failure = std::current_exception();
      next = replicas;
    }
  };
  {
    std::vector<std::jthread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
  return totals;
}

ReplayWorkload::ReplayWorkload(std::function<std::optional<ReplayRecord>()> next)
    : next_(std::move(next)) {}

std::optional<Work> ReplayWorkload::next() {
  const std::optional<ReplayRecord> record = next_();
  if (!record) return std::nullopt;
  Work work;
  work.record = left_.size();
  work.prompt.resize(record->prompt_tokens);
  work.max_tokens = record->max_tokens;
  left_.push_back(record->answer_tokens);
  return work;
}

bool ReplayWorkload::accept(std::uint64_t record, std::int32_t) { return --left_[record] == 0; }

void ReplayWorkload::reject(std::uint64_t, const std::string&) { ++rejected_; }

}  // namespace penstock::jobs
