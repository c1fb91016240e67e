#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "jobs/block_pool.hpp"
#include "model/sampler.hpp"
#include "model/step_cost.hpp"
#include "model/step_plan.hpp"

namespace penstock::jobs {

// What bounds the scheduler.
struct SchedulerLimits {
  std::uint32_t slots = 1;
  std::uint32_t max_step_tokens = 512;  // rows of one step
  std::uint32_t max_sequences = 256;    // of one slot; at most max_step_tokens
  std::uint32_t kv_blocks = 0;
};

// A record as the scheduler sees it.
struct Work {
  std::uint64_t record = 0;          // not known to the scheduler already
  std::vector<std::int32_t> prompt;  // not empty
  model::SamplingParams sampling;
  std::uint32_t max_tokens = 1;         // of the answer, at least 1
  std::vector<std::int32_t> generated;  // by an earlier run: the answer goes on behind them
};

// A token that came back for a record.
struct SampledToken {
  std::uint64_t record = 0;
  std::int32_t token = 0;
};

// Plans the steps of one pipeline: continuous batching over slots, prefill in chunks, KV blocks,
// eviction of the youngest. Pure: no MPI, no clock, no text. The driver calls, for each slot in
// turn,
//
//   complete(slot, sampled ids)  ->  tokens; finish(record) for those whose answer ends
//   plan(slot)                   ->  the slot's next step; no rows: nothing to do for it now
//
// A plan may be made for a slot only after complete() of its last one. There is always a slot with
// something to do unless idle(): the oldest sequence may take the blocks of all others.
class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, const model::StepCost& cost);
  ~Scheduler();

  // There is nothing to do.
  bool idle() const;
  // How many more records the scheduler would like to have queued to plan well. However long they
  // are, those that wait need little memory: about what the KV memory holds in tokens.
  std::size_t wanted() const;
  // Queues a record behind those queued before. False, and not queued, if its prompt alone can
  // never fit the KV memory.
  bool add(Work work);
  // The dataset holds nothing more.
  void set_exhausted() { exhausted_ = true; }
  // False: only sequences that had a step already go on; the others wait, and do not count as work.
  void set_admitting(bool admitting) { admitting_ = admitting; }
  // Rounds until the sequences that had a step already, and the next to be admitted, have their
  // expected answers, if each gets a row in every round.
  std::uint64_t rounds_needed() const;
  // The pipeline runs empty: a slot has nothing to do, and nothing is left to be admitted.
  bool draining() const;

  model::StepPlan plan(std::uint32_t slot);
  bool in_flight(std::uint32_t slot) const;
  // Of the slot's latest plan.
  const model::StepShape& shape(std::uint32_t slot) const;

  // `sampled` are the ids of the plan's sequences with `sample`, in order.
  std::vector<SampledToken> complete(std::uint32_t slot, std::span<const std::int32_t> sampled);
  // The record's answer is complete: its blocks are free for the next plan.
  void finish(std::uint64_t record);

  // Records that cannot go on because they fill all of the KV memory alone. They are forgotten.
  std::vector<std::uint64_t> take_unfit();

  std::uint64_t steps() const { return next_step_; }
  // Rows planned for prompts, evictions' repeats included.
  std::uint64_t prompt_rows() const { return prompt_rows_; }
  std::uint64_t evictions() const { return evictions_; }
  const BlockPool& pool() const { return pool_; }

 private:
  struct Sequence;
  struct Slot;
  struct Building;  // the plan under construction

  double longest_step() const;
  bool nothing_to_begin() const;
  void share_out(Slot& slot);
  void plan_running(Building& building, bool decodes);
  void admit(Building& building);
  void join(Sequence& sequence, Slot& slot);
  bool append_chunk(Sequence& sequence, Building& building);
  std::uint32_t row_budget(const Building& building, std::uint64_t position) const;
  bool grow(Sequence& sequence, std::uint64_t tokens);
  void evict(Sequence& sequence);
  void leave_slot(Sequence& sequence);
  void forget(Sequence& sequence);
  void update_reserved(Sequence& sequence);
  std::uint64_t all_reserved();
  std::uint64_t expected_answer(const Sequence& sequence) const;
  std::uint64_t expected_blocks(const Sequence& sequence) const;

  SchedulerLimits limits_;
  model::StepCost cost_;
  BlockPool pool_;
  std::vector<Slot> slots_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Sequence>> sequences_;  // by record
  std::deque<Sequence*> waiting_;                                           // oldest first
  std::uint64_t waiting_tokens_ = 0;                                        // of their prompts
  std::vector<std::uint32_t> retired_;  // handles to be named by the next plan
  std::vector<std::uint64_t> unfit_;
  std::uint64_t next_age_ = 0;
  std::uint32_t next_handle_ = 0;
  std::uint64_t next_step_ = 0;
  std::uint64_t prompt_rows_ = 0;
  std::uint64_t evictions_ = 0;
  bool exhausted_ = false;
  bool admitting_ = true;
  std::uint64_t finished_ = 0;         // answers so far and their tokens: what admission
  std::uint64_t finished_tokens_ = 0;  // expects of the next
  std::uint64_t mean_answer_;
  std::size_t running_ = 0;         // sequences in slots
  std::uint64_t reserved_ = 0;      // sum of Sequence::reserved
  bool reserved_is_stale_ = false;  // the mean has changed since
  std::vector<Sequence*> members_;  // of the slot that is planned; kept for its memory
};

}  // namespace penstock::jobs
