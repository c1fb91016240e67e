#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/ops/sample.hpp"
#include "model/step_plan.hpp"

namespace penstock::model {

// What a penalty table of a sequence starts with: the tokens of prompt and answer that are in the
// vocabulary, each once, in the order of their ids. Header and entries, as they lie in the GPU's
// memory. ModelError when there are more than `capacity`.
std::vector<std::byte> make_penalty_table(const Admission& admission, std::size_t vocab_size,
                                          std::uint32_t capacity);

// The sequences that are alive, for sampling on a GPU: StageSamplers' twin. Keeps on the host what
// the host knows without reading ids, and gives penalty tables out of a fixed number of them.
class GpuSamplers {
 public:
  // Where tables may lie, `capacity` entries each, in the GPU's memory.
  GpuSamplers(std::vector<PenaltyTable*> tables, std::size_t vocab_size, std::uint32_t capacity);
  GpuSamplers() = default;

  void clear();
  // Forgets the retired, then takes in the admitted. `upload` puts a table's first contents in
  // place, in the order of the steps; they are its own to keep until that is done. ModelError when
  // a sequence is admitted twice, or more with penalties are alive than there are tables.
  using Upload = std::function<void(PenaltyTable* to, std::vector<std::byte> table)>;
  void update(const StepPlan& plan, const Upload& upload);

  // A row for each of the plan's sequences that sample, in their order, with `position` counted up
  // for the next time. ModelError when a sequence was never admitted.
  void rows(const StepPlan& plan, std::vector<SampleRow>& rows);

 private:
  std::unordered_map<std::uint32_t, SampleRow> sequences_;
  std::vector<PenaltyTable*> tables_;
  std::vector<PenaltyTable*> free_;
  std::size_t vocab_size_ = 0;
  std::uint32_t capacity_ = 0;
};

}  // namespace penstock::model
