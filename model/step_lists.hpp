#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/ops/attention.hpp"
#include "model/ops/sample.hpp"
#include "model/step_plan.hpp"

namespace penstock::model {

// The lists of a step that kernels read, in one piece of memory, so that one copy takes them to the
// GPU.

// How many entries the lists have room for.
struct StepRoom {
  std::uint32_t rows = 0;
  std::uint32_t samples = 0;
  std::uint32_t wide = 0;
  std::uint32_t narrow = 0;
  std::uint32_t merges = 0;
  std::uint64_t table = 0;  // of the block table
};

// Where each list starts, in bytes, at multiples of 64. The block table is the last, so that the
// places of all lists depend only on numbers that a graph's key has.
struct StepLayout {
  explicit StepLayout(const StepRoom& room);

  std::size_t counts = 0;        // AttentionCounts
  std::size_t sample_count = 0;  // std::uint32_t
  std::size_t tokens = 0;        // [rows] std::int32_t
  std::size_t positions = 0;     // [rows] std::uint32_t
  std::size_t row_blocks = 0;    // [rows] std::uint32_t
  std::size_t sample_rows = 0;   // [samples] std::int32_t, rows of the step
  std::size_t sampling = 0;      // [samples] SampleRow
  std::size_t wide = 0;          // AttentionTask
  std::size_t narrow = 0;        // AttentionTask
  std::size_t merges = 0;        // AttentionMerge
  std::size_t table = 0;         // std::uint32_t
  std::size_t bytes = 0;
};

// Writes a step's lists; rows beyond the plan's are tokens 0 that are written to `scratch_block`,
// which no sequence reads. `to` has room for layout.bytes. `sampling` is empty but on the last
// stage, where it has a row for each sequence that samples.
void write_step(const StepPlan& plan, const AttentionPlan& attention,
                std::span<const SampleRow> sampling, const StepRoom& room, const StepLayout& layout,
                std::uint32_t scratch_block, std::span<std::byte> to);

}  // namespace penstock::model
