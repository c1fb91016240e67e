#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "model/sampler.hpp"
#include "model/step_plan.hpp"

namespace penstock::model {

// The samplers of the sequences that are alive, kept by the last stage.
class StageSamplers {
 public:
  StageSamplers(std::size_t vocab_size, int threads);

  void clear() { samplers_.clear(); }
  // Forgets the retired, then takes in the admitted. ModelError when a sequence is admitted twice.
  void update(const StepPlan& plan);

  // The next tokens of the plan's sequences that sample, in their order; `logits` is
  // [samples, vocab] and stays as it is. ModelError when a sequence was never admitted.
  void sample(const StepPlan& plan, std::span<const float> logits, std::vector<std::int32_t>& ids);

 private:
  std::size_t vocab_size_;
  int threads_;
  std::unordered_map<std::uint32_t, Sampler> samplers_;
  std::vector<Sampler*> chosen_;
  std::vector<SamplerScratch> scratch_;  // of each thread
};

}  // namespace penstock::model
