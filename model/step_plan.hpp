#pragma once

#include <cstdint>
#include <vector>

#include "model/sampler.hpp"

namespace penstock::model {

// Tokens in one KV block; also the tile in which attention walks the cache.
inline constexpr std::uint32_t kKvBlockTokens = 32;

// A sequence that joins (or, after an eviction, joins again under a new handle). Only the last
// stage needs it.
struct Admission {
  std::uint32_t sequence = 0;  // the driver's handle, never used twice in a run
  std::uint64_t record = 0;    // index in the dataset: keys the random numbers
  SamplingParams sampling;
  std::vector<std::int32_t> tokens;  // prompt, then what was generated so far
  std::uint32_t prompt_tokens = 0;   // how many of them are the prompt
};

// A sequence's part of a step: `rows` consecutive tokens that start at `position`.
struct SequenceStep {
  std::uint32_t sequence = 0;
  std::uint32_t first_row = 0;  // in the step's rows
  std::uint32_t rows = 0;
  std::uint32_t position = 0;     // of the first row
  std::uint32_t first_block = 0;  // in StepPlan::block_table
  std::uint32_t blocks = 0;       // ceil((position + rows) / kKvBlockTokens)
  bool sample = false;            // the last row's logits are sampled
};

// One pass of one slot through all stages, as the driver tells it to every stage.
struct StepPlan {
  std::uint64_t step = 0;  // counts up by one in each pipeline
  std::uint32_t slot = 0;
  std::vector<std::int32_t> tokens;        // [rows]
  std::vector<SequenceStep> sequences;     // in row order, without gaps
  std::vector<std::uint32_t> block_table;  // block ids, equal on all stages
  std::vector<Admission> admitted;         // first seen in this step
  std::vector<std::uint32_t> retired;      // sequences to forget (finished or evicted)
  bool draining = false;                   // the pipeline runs empty: the dataset is at its end

  std::uint32_t rows() const { return static_cast<std::uint32_t>(tokens.size()); }
};

}  // namespace penstock::model
