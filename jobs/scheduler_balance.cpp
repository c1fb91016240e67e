#include <algorithm>

#include "jobs/scheduler_parts.hpp"

// How the scheduler keeps steps of about one length, so that no stage waits for another.
namespace penstock::jobs {
namespace {

// A step may take this much longer than those in flight, at most. So prefill work spreads over the
// slots evenly, while its share can still grow from step to step when there is much of it.
constexpr double kStepGrowth = 0.1;
// A slot's sequences are only shared out where half of them take at most so much of the time: else
// it is the weights that take it, which every slot reads anew.
constexpr double kWorthSharing = 0.9;
// Rows a prefill chunk gets even so: fewer would not pay for the step.
constexpr std::uint32_t kLeastChunk = 32;
model::StepShape operator-(const model::StepShape& a, const model::StepShape& b) {
  return {a.rows - b.rows, a.sampled - b.sampled, a.attended - b.attended, a.cached - b.cached};
}

}  // namespace

// How long a step may take, so that the steps in flight do not wait for it. Each stage computes a
// step of every slot in a round; meanwhile a step goes through all stages, at the speed of the
// longest. With a slot more than stages, a step that is longer than the mean by one part in as many
// as there are stages keeps nobody waiting. 0: no limit, as nothing is in flight.
double Scheduler::longest_step() const {
  double seconds = 0;
  std::size_t others = 0;
  for (const Slot& other : slots_) {
    if (!other.busy) continue;
    seconds += other.predicted_seconds;
    ++others;
  }
  if (others == 0) return 0;
  const double spare = limits_.slots > 2 ? 1.0 / (limits_.slots - 2) : kStepGrowth;
  return seconds / static_cast<double>(others) * (1 + std::min(spare, kStepGrowth));
}

// Where no admission evens the slots out any more: while this slot's step would be so long that the
// others wait for it (see longest_step), its youngest move to the shortest, which may be empty.
// Sequences are not in flight here; blocks and handles stay, as stages know nothing of slots. A
// slot that nobody needs stays empty: each more reads all the weights.
void Scheduler::share_out(Slot& slot) {
  if (slot.running.size() < 2) return;
  model::StepShape shape;
  for (const Sequence* sequence : slot.running) shape = shape + sequence->decode_row();
  double mine = cost_.seconds(shape);
  const model::StepShape half{shape.rows / 2, shape.sampled / 2, shape.attended / 2,
                              shape.cached / 2};
  if (cost_.seconds(half) > mine * kWorthSharing) return;
  double all = mine;
  for (const Slot& other : slots_) {
    if (&other != &slot) all += other.predicted_seconds;
  }
  while (slot.running.size() > 1 && (limits_.slots - 1) * mine > all) {
    Slot* shortest = nullptr;
    for (Slot& other : slots_) {
      if (&other != &slot && other.running.size() < limits_.max_sequences &&
          (shortest == nullptr || other.predicted_seconds < shortest->predicted_seconds)) {
        shortest = &other;
      }
    }
    if (shortest == nullptr) return;
    Sequence& youngest = *slot.running.back();
    const model::StepShape one = youngest.decode_row();
    const double left = cost_.seconds(shape - one);
    const double theirs = shortest->predicted_seconds > 0
                              ? shortest->predicted_seconds + mine - left
                              : cost_.seconds(one);
    if (theirs >= mine) return;
    slot.running.pop_back();
    --running_;
    join(youngest, *shortest);
    all += left - mine + theirs - shortest->predicted_seconds;
    shortest->predicted_seconds = theirs;
    mine = left;
    shape = shape - one;
  }
}

// Rows that a chunk from `position` on may have, so that the step's predicted time stays near
// that of the steps in flight.
std::uint32_t Scheduler::row_budget(const Building& building, std::uint64_t position) const {
  const std::uint32_t left = limits_.max_step_tokens - building.plan.rows();
  if (building.target_seconds <= 0) return left;
  std::uint32_t fits = 0;
  std::uint32_t too_many = left + 1;
  while (too_many - fits > 1) {
    const std::uint32_t rows = fits + (too_many - fits) / 2;
    model::StepShape shape = building.shape;
    shape.rows += rows;
    shape.sampled += 1;
    shape.attended += rows * position + std::uint64_t{rows} * (rows + 1) / 2;
    shape.cached += position + rows;
    (cost_.seconds(shape) <= building.target_seconds ? fits : too_many) = rows;
  }
  // The first chunk of a step is never held back altogether.
  const bool has_prefill = building.shape.rows > building.shape.sampled;
  return has_prefill ? fits : std::max(fits, std::min(left, kLeastChunk));
}

}  // namespace penstock::jobs
