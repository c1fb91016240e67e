#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "jobs/scheduler_parts.hpp"

namespace penstock::jobs {
namespace {

// Tokens of an answer expected before any is known.
constexpr std::uint64_t kFirstExpectation = 128;

std::uint64_t blocks_for(std::uint64_t tokens) {
  return (tokens + model::kKvBlockTokens - 1) / model::kKvBlockTokens;
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, const model::StepCost& cost)
    : limits_(limits),
      cost_(cost),
      pool_(limits.kv_blocks),
      slots_(limits.slots),
      mean_answer_(kFirstExpectation) {
  limits_.max_sequences = std::min(limits_.max_sequences, limits_.max_step_tokens);
  if (limits_.slots == 0 || limits_.max_sequences == 0) {
    throw std::invalid_argument("a scheduler needs slots and rows");
  }
}

Scheduler::~Scheduler() = default;

std::size_t Scheduler::wanted() const {
  // All slots full, and one slot's worth behind them.
  const std::size_t full = std::size_t{limits_.max_sequences} * (limits_.slots + 1);
  const std::uint64_t most_tokens = std::uint64_t{pool_.capacity()} * model::kKvBlockTokens +
                                    std::uint64_t{limits_.max_step_tokens} * limits_.slots;
  if (waiting_tokens_ >= most_tokens) return 0;
  return sequences_.size() < full ? full - sequences_.size() : 0;
}

bool Scheduler::add(Work work) {
  if (blocks_for(work.prompt.size() + 1) > pool_.capacity()) return false;
  auto sequence = std::make_unique<Sequence>();
  sequence->record = work.record;
  sequence->age = next_age_++;
  sequence->sampling = work.sampling;
  const auto prompt_tokens = static_cast<std::uint32_t>(work.prompt.size());
  sequence->prompt_tokens = prompt_tokens;
  sequence->tokens = std::move(work.prompt);
  sequence->tokens.insert(sequence->tokens.end(), work.generated.begin(), work.generated.end());
  sequence->max_tokens = work.max_tokens;
  waiting_.push_back(sequence.get());
  if (!sequences_.emplace(work.record, std::move(sequence)).second) {
    waiting_.pop_back();
    throw std::logic_error("record " + std::to_string(work.record) + " was queued twice");
  }
  waiting_tokens_ += prompt_tokens;
  return true;
}

bool Scheduler::idle() const {
  return admitting_ ? sequences_.empty()
                    : std::none_of(sequences_.begin(), sequences_.end(),
                                   [](const auto& entry) { return entry.second->started; });
}

std::uint64_t Scheduler::rounds_needed() const {
  std::uint64_t most = 0;
  const auto consider = [&](const Sequence& sequence) {
    const std::uint64_t prefill = sequence.pending() / limits_.max_step_tokens;
    most = std::max(most, expected_answer(sequence) - sequence.generated() + prefill);
  };
  for (const auto& [record, sequence] : sequences_) {
    if (sequence->started) consider(*sequence);
  }
  if (!waiting_.empty()) {
    consider(*waiting_.front());
  } else if (!exhausted_) {
    most = std::max(most, mean_answer_);
  }
  return most;
}

bool Scheduler::in_flight(std::uint32_t slot) const { return slots_.at(slot).busy; }

const model::StepShape& Scheduler::shape(std::uint32_t slot) const { return slots_.at(slot).shape; }

bool Scheduler::nothing_to_begin() const { return !admitting_ || (exhausted_ && waiting_.empty()); }

bool Scheduler::draining() const {
  return nothing_to_begin() && std::any_of(slots_.begin(), slots_.end(),
                                           [](const Slot& slot) { return slot.running.empty(); });
}

model::StepPlan Scheduler::plan(std::uint32_t slot_index) {
  Slot& slot = slots_.at(slot_index);
  if (slot.busy) throw std::logic_error("a slot was planned before its last step was complete");
  Building building{slot, {}, {}, 0};
  building.target_seconds = longest_step();
  if (nothing_to_begin()) share_out(slot);
  building.plan.sequences.reserve(slot.running.size() + 1);
  building.plan.tokens.reserve(slot.running.size() + 1);
  building.plan.block_table.reserve(slot.table_blocks + slot.running.size());
  plan_running(building, true);
  plan_running(building, false);
  admit(building);
  for (Sequence* sequence : slot.running) sequence->in_plan = false;

  model::StepPlan& plan = building.plan;
  slot.predicted_seconds = 0;
  if (plan.rows() == 0) return plan;
  plan.step = next_step_++;
  plan.slot = slot_index;
  plan.draining = draining();
  plan.retired = std::exchange(retired_, {});
  slot.busy = true;
  slot.shape = building.shape;
  slot.predicted_seconds = cost_.seconds(building.shape);
  slot.table_blocks = plan.block_table.size();
  return std::move(building.plan);
}

// Sequences that are in the slot already: first those that decode (one row each), then those
// whose prompt is not through yet.
void Scheduler::plan_running(Building& building, bool decodes) {
  members_ = building.slot.running;  // eviction changes the slot's own
  for (Sequence* sequence : members_) {
    if (sequence->slot != &building.slot || (sequence->pending() == 1) != decodes) continue;
    append_chunk(*sequence, building);
  }
}

void Scheduler::admit(Building& building) {
  // Few records are shared out evenly, rather than all to the first slot.
  const std::size_t share = (sequences_.size() + limits_.slots - 1) / limits_.slots;
  const std::size_t most = std::min<std::size_t>(limits_.max_sequences, share);
  const auto has_room = [&] {
    return building.slot.running.size() < most && row_budget(building, 0) > 0;
  };
  if (waiting_.empty() || !has_room()) return;
  std::uint64_t reserved = all_reserved();
  std::size_t running = running_;
  std::size_t next = 0;
  while (next < waiting_.size()) {
    Sequence& sequence = *waiting_[next];
    // Evicted, and its last token is not back yet; or not to be begun any more.
    if (sequence.in_flight || (!admitting_ && !sequence.started)) {
      ++next;
      continue;
    }
    const std::uint64_t expected = expected_blocks(sequence);
    if (running > 0 && expected + reserved > pool_.free()) return;
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(next));
    waiting_tokens_ -= sequence.prompt_tokens;
    sequence.handle = next_handle_++;
    sequence.prompt_done = false;
    join(sequence, building.slot);
    if (append_chunk(sequence, building)) {
      ++running;
      building.plan.admitted.push_back({sequence.handle, sequence.record, sequence.sampling,
                                        sequence.tokens, sequence.prompt_tokens});
      reserved += expected - std::min<std::uint64_t>(expected, sequence.blocks.size());
    }
    if (!has_room()) return;
  }
}

void Scheduler::join(Sequence& sequence, Slot& slot) {
  sequence.slot = &slot;
  ++running_;
  slot.running.insert(
      std::upper_bound(slot.running.begin(), slot.running.end(), &sequence,
                       [](const Sequence* a, const Sequence* b) { return a->age < b->age; }),
      &sequence);
  update_reserved(sequence);
}

// Adds as many of the sequence's next tokens to the plan as the step and the KV memory take.
// False: the sequence can never go on, and is forgotten.
bool Scheduler::append_chunk(Sequence& sequence, Building& building) {
  model::StepPlan& plan = building.plan;
  const bool decode = sequence.pending() == 1;
  const std::uint32_t budget =
      decode ? limits_.max_step_tokens - plan.rows() : row_budget(building, sequence.computed);
  const auto rows = static_cast<std::uint32_t>(std::min<std::uint64_t>(sequence.pending(), budget));
  if (rows == 0) return true;
  const std::uint64_t end = std::uint64_t{sequence.computed} + rows;
  if (!grow(sequence, end)) {
    // Nobody else holds a block and it is still too little?
    if (pool_.free() + sequence.blocks.size() < pool_.capacity()) return true;
    unfit_.push_back(sequence.record);
    forget(sequence);
    return false;
  }

  model::SequenceStep step;
  step.sequence = sequence.handle;
  step.first_row = plan.rows();
  step.rows = rows;
  step.position = sequence.computed;
  step.first_block = static_cast<std::uint32_t>(plan.block_table.size());
  step.blocks = static_cast<std::uint32_t>(blocks_for(end));
  step.sample = end == sequence.tokens.size();
  plan.tokens.insert(plan.tokens.end(), sequence.tokens.begin() + sequence.computed,
                     sequence.tokens.begin() + static_cast<std::ptrdiff_t>(end));
  plan.block_table.insert(plan.block_table.end(), sequence.blocks.begin(),
                          sequence.blocks.begin() + step.blocks);
  plan.sequences.push_back(step);

  building.shape.rows += rows;
  building.shape.sampled += step.sample ? 1 : 0;
  building.shape.attended +=
      std::uint64_t{rows} * sequence.computed + std::uint64_t{rows} * (rows + 1) / 2;
  building.shape.cached += end;
  building.slot.in_flight.push_back({&sequence, step.sample});
  if (!sequence.prompt_done) prompt_rows_ += rows;
  sequence.prompt_done |= step.sample;
  sequence.computed = static_cast<std::uint32_t>(end);
  sequence.in_flight = true;
  sequence.in_plan = true;
  sequence.started = true;
  return true;
}

// Gives the sequence blocks for `tokens` tokens, taking them from younger sequences if it must.
// False: not now.
bool Scheduler::grow(Sequence& sequence, std::uint64_t tokens) {
  const std::uint64_t wanted = blocks_for(tokens);
  if (wanted <= sequence.blocks.size()) return true;
  const auto missing = static_cast<std::uint32_t>(wanted - sequence.blocks.size());
  while (pool_.free() < missing) {
    Sequence* youngest = nullptr;
    for (const Slot& slot : slots_) {
      // The youngest are the last.
      for (auto other = slot.running.rbegin(); other != slot.running.rend(); ++other) {
        if ((*other)->age <= (youngest == nullptr ? sequence : *youngest).age) break;
        if ((*other)->in_plan || (*other)->blocks.empty()) continue;
        youngest = *other;
        break;
      }
    }
    if (youngest == nullptr) break;
    evict(*youngest);
  }
  if (!pool_.allocate(missing, sequence.blocks)) return false;
  update_reserved(sequence);
  return true;
}

// Its blocks are free at once even if a step in flight uses them: every stage computes the steps
// in order, so that step comes before any that uses the blocks again.
void Scheduler::evict(Sequence& sequence) {
  leave_slot(sequence);
  sequence.computed = 0;
  waiting_.insert(
      std::upper_bound(waiting_.begin(), waiting_.end(), &sequence,
                       [](const Sequence* a, const Sequence* b) { return a->age < b->age; }),
      &sequence);
  waiting_tokens_ += sequence.prompt_tokens;
  ++evictions_;
}

void Scheduler::leave_slot(Sequence& sequence) {
  std::erase(sequence.slot->running, &sequence);
  sequence.slot = nullptr;
  --running_;
  update_reserved(sequence);
  retired_.push_back(sequence.handle);
  pool_.release(sequence.blocks);
}

void Scheduler::forget(Sequence& sequence) {
  if (sequence.slot != nullptr) {
    leave_slot(sequence);
  } else {
    std::erase(waiting_, &sequence);
    waiting_tokens_ -= sequence.prompt_tokens;
  }
  sequences_.erase(sequence.record);
}

std::vector<SampledToken> Scheduler::complete(std::uint32_t slot_index,
                                              std::span<const std::int32_t> sampled) {
  Slot& slot = slots_.at(slot_index);
  if (!slot.busy) throw std::logic_error("a step was completed that was not planned");
  const auto samples = std::count_if(slot.in_flight.begin(), slot.in_flight.end(),
                                     [](const Slot::Item& item) { return item.sample; });
  if (static_cast<std::size_t>(samples) != sampled.size()) {
    throw std::runtime_error("the last stage sampled " + std::to_string(sampled.size()) +
                             " tokens where the step plan asked for " + std::to_string(samples));
  }
  std::vector<SampledToken> tokens;
  tokens.reserve(sampled.size());
  for (const Slot::Item& item : slot.in_flight) {
    Sequence& sequence = *item.sequence;
    sequence.in_flight = false;
    if (!item.sample) continue;
    const std::int32_t token = sampled[tokens.size()];
    sequence.tokens.push_back(token);
    tokens.push_back({sequence.record, token});
    // Longer than was expected.
    if (expected_answer(sequence) == sequence.generated() + 1) update_reserved(sequence);
  }
  slot.in_flight.clear();
  slot.busy = false;
  return tokens;
}

void Scheduler::finish(std::uint64_t record) {
  Sequence& sequence = *sequences_.at(record);
  if (sequence.in_flight) throw std::logic_error("a record was finished while in flight");
  ++finished_;
  finished_tokens_ += sequence.generated();
  forget(sequence);
  const std::uint64_t mean = finished_tokens_ / finished_ + 1;
  reserved_is_stale_ |= mean != mean_answer_;
  mean_answer_ = mean;
}

std::vector<std::uint64_t> Scheduler::take_unfit() { return std::exchange(unfit_, {}); }

void Scheduler::update_reserved(Sequence& sequence) {
  std::uint64_t blocks = 0;
  if (sequence.slot != nullptr) {
    const std::uint64_t expected = expected_blocks(sequence);
    blocks = expected - std::min<std::uint64_t>(expected, sequence.blocks.size());
  }
  reserved_ = reserved_ + blocks - sequence.reserved;
  sequence.reserved = static_cast<std::uint32_t>(blocks);
}

// Blocks that running sequences will still ask for.
std::uint64_t Scheduler::all_reserved() {
  if (std::exchange(reserved_is_stale_, false)) {
    for (const Slot& slot : slots_) {
      for (Sequence* sequence : slot.running) update_reserved(*sequence);
    }
  }
  return reserved_;
}

std::uint64_t Scheduler::expected_answer(const Sequence& sequence) const {
  return std::max(std::min<std::uint64_t>(mean_answer_, sequence.max_tokens),
                  sequence.generated() + 1);
}

std::uint64_t Scheduler::expected_blocks(const Sequence& sequence) const {
  return blocks_for(sequence.prompt_tokens + expected_answer(sequence));
}

}  // namespace penstock::jobs
