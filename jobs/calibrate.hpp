#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/world.hpp"
#include "jobs/bench.hpp"
#include "model/calibration.hpp"
#include "model/stage.hpp"

namespace penstock::jobs {

// A step that is measured: `sequences` with `rows` new tokens each behind `position` older ones.
struct CalibrationStep {
  std::uint32_t sequences = 1;
  std::uint32_t rows = 1;
  std::uint32_t position = 0;
  bool sample = true;
  bool drawn = false;  // at random, not greedily
  model::StepShape shape() const;
};

// Decoding of few to many sequences with little context, of some with much, and of some whose
// tokens are drawn at random; prompts of several lengths, from their beginning and behind a part
// that is computed already. All fit the limits.
std::vector<CalibrationStep> calibration_steps(std::uint32_t max_rows, std::uint32_t max_sequences,
                                               std::uint32_t context);

// Plans of such steps, for a stage that is the whole of a network. Each sequence has KV blocks of
// its own, from 0 on, which a second one shares whose tokens are drawn at random.
class CalibrationPlans {
 public:
  explicit CalibrationPlans(std::span<const CalibrationStep> steps);
  std::uint32_t kv_blocks() const { return kv_blocks_; }
  // Steps of at most `max_rows` rows that write the KV of all older tokens, and admit all
  // sequences.
  std::vector<model::StepPlan> fill(std::uint32_t max_rows, std::int64_t vocab_size);
  model::StepPlan plan(const CalibrationStep& step, std::int64_t vocab_size);

 private:
  void add(model::StepPlan& plan, std::uint32_t sequence, const CalibrationStep& step,
           std::int64_t vocab_size) const;
  std::uint32_t drawn_twin(std::uint32_t sequence) const;
  std::vector<std::uint32_t> tokens_;       // of each sequence
  std::vector<std::uint32_t> first_block_;  // of each sequence
  std::uint32_t kv_blocks_ = 0;
  std::uint64_t step_ = 0;
};

// penstock bench --calibrate: measures the parts of the network on every rank at once and keeps
// the means of each kind of machine in the checkpoint's calibration file. Collective over the
// world. Returns the exit code.
int run_calibrate(const comm::World& world, const BenchOptions& options);

}  // namespace penstock::jobs
