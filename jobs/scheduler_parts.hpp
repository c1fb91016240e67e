#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "jobs/scheduler.hpp"

// What a scheduler is made of; only its own sources include this.
namespace penstock::jobs {

// What every step looks at comes first.
struct Scheduler::Sequence {
  std::uint64_t record = 0;
  std::uint64_t age = 0;  // order of add(): eviction takes the highest
  Slot* slot = nullptr;   // null: waiting
  std::uint32_t prompt_tokens = 0;
  std::uint32_t max_tokens = 0;
  std::uint32_t computed = 0;        // tokens whose KV is written, or will be by a planned step
  std::uint32_t handle = 0;          // of the present admission
  std::uint32_t reserved = 0;        // blocks that it will still ask for, as far as is expected
  bool in_flight = false;            // part of a step that is not complete
  bool in_plan = false;              // part of the plan under construction
  bool started = false;              // had a step, before an eviction perhaps
  bool prompt_done = false;          // a step of the present admission sampled
  std::vector<std::int32_t> tokens;  // prompt, then the answer so far
  std::vector<std::uint32_t> blocks;
  model::SamplingParams sampling;

  std::uint64_t pending() const { return tokens.size() - computed; }
  std::uint64_t generated() const { return tokens.size() - prompt_tokens; }
  // Its part of a step once its prompt is through.
  model::StepShape decode_row() const { return {1, 1, tokens.size(), tokens.size()}; }
};

struct Scheduler::Slot {
  std::vector<Sequence*> running;  // oldest first
  struct Item {
    Sequence* sequence = nullptr;  // is not forgotten while in flight
    bool sample = false;
  };
  std::vector<Item> in_flight;  // the sequences of the step under way
  bool busy = false;
  model::StepShape shape;        // of the latest step
  double predicted_seconds = 0;  // of the step under way, or of the next; 0: there is none
  std::size_t table_blocks = 0;  // in the latest plan
};

struct Scheduler::Building {
  Slot& slot;
  model::StepPlan plan;
  model::StepShape shape;
  double target_seconds = 0;  // 0: no limit
};

}  // namespace penstock::jobs
