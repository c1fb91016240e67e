#include "jobs/rounds.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <utility>

namespace penstock::jobs {
namespace {

constexpr double kLatestRoundWeight = 0.1;  // in the time of a round

}  // namespace

void Rounds::RoundTimes::visit(std::uint32_t slot, Ledger::Time now) {
  if (slot != 0) return;
  if (last_) {
    const double round = std::chrono::duration<double>(now - *last_).count();
    seconds_ = seconds_ == 0 ? round : seconds_ + (round - seconds_) * kLatestRoundWeight;
  }
  last_ = now;
}

Rounds::Rounds(const SchedulerLimits& limits, const model::StepCost& cost, StepRunner& runner,
               Workload& workload)
    : limits_(limits), runner_(runner), workload_(workload), scheduler_(limits, cost) {}

void Rounds::run() {
  workload_.begin([this] { return runner_.now(); });
  for (std::uint32_t slot = 0;; slot = (slot + 1) % limits_.slots) {
    if (scheduler_.in_flight(slot)) collect(slot);
    keep_pace(slot);
    if (pace_ == Pace::stop) break;
    refill();
    if (scheduler_.idle() && (exhausted_ || pace_ != Pace::admit)) break;
    start(slot);
  }
  for (std::uint32_t slot = 0; slot < limits_.slots; ++slot) {
    if (scheduler_.in_flight(slot)) collect(slot);
  }
}

StepCounts Rounds::counts() const {
  return {scheduler_.steps(), scheduler_.prompt_rows(), generated_tokens_, scheduler_.evictions()};
}

// Waits for the slot's tokens and gives them to the workload.
void Rounds::collect(std::uint32_t slot) {
  const auto ids = runner_.wait_for_tokens(slot, scheduler_.draining());
  for (const SampledToken& sampled : scheduler_.complete(slot, ids)) {
    ++generated_tokens_;
    if (workload_.accept(sampled.record, sampled.token)) scheduler_.finish(sampled.record);
  }
  runner_.step_done();
}

// Whether records are still to be admitted.
void Rounds::keep_pace(std::uint32_t slot) {
  rounds_.visit(slot, runner_.now());
  pace_ = workload_.pace(
      [this] { return static_cast<double>(scheduler_.rounds_needed()) * rounds_.seconds(); });
  scheduler_.set_admitting(pace_ == Pace::admit);
}

// Keeps enough records queued. On the ledger this is time in which no step is planned, so a step's
// turn reads two steps' worth at most: the queue fills up while the stages compute.
void Rounds::refill() {
  const std::size_t enough = std::size_t{2} * limits_.max_step_tokens;
  std::size_t read = 0;
  while (pace_ == Pace::admit && !exhausted_ && read < enough && scheduler_.wanted() > 0) {
    std::optional<Work> work = workload_.next();
    runner_.record_read();
    if (!work) {
      exhausted_ = true;
      scheduler_.set_exhausted();
      break;
    }
    const std::uint64_t record = work->record;
    const std::size_t tokens = work->prompt.size();
    read += std::max<std::size_t>(tokens, 1);
    if (tokens == 0) continue;
    if (!scheduler_.add(std::move(*work))) {
      workload_.reject(record, fmt::format("the prompt has {} tokens; the KV memory holds {} "
                                           "(raise --kv-memory)",
                                           tokens, kv_tokens()));
    }
  }
}

std::uint64_t Rounds::kv_tokens() const {
  return std::uint64_t{limits_.kv_blocks} * model::kKvBlockTokens;
}

// Plans the slot's next step and has it begun.
void Rounds::start(std::uint32_t slot) {
  const model::StepPlan plan = scheduler_.plan(slot);
  for (const std::uint64_t record : scheduler_.take_unfit()) {
    workload_.reject(record, fmt::format("prompt and answer need more than the {} tokens that "
                                         "the KV memory holds (raise --kv-memory)",
                                         kv_tokens()));
  }
  if (plan.rows() == 0) {
    if (++idle_visits_ > limits_.slots && !scheduler_.idle() && !anything_in_flight()) {
      throw std::logic_error("the scheduler has records but plans nothing");
    }
    return;
  }
  idle_visits_ = 0;
  runner_.start(plan, scheduler_.shape(slot));
}

bool Rounds::anything_in_flight() const {
  for (std::uint32_t slot = 0; slot < limits_.slots; ++slot) {
    if (scheduler_.in_flight(slot)) return true;
  }
  return false;
}

}  // namespace penstock::jobs
