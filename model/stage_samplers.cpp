#include "model/stage_samplers.hpp"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <exception>

#include "model/error.hpp"

namespace penstock::model {

StageSamplers::StageSamplers(std::size_t vocab_size, int threads)
    : vocab_size_(vocab_size),
      threads_(threads),
      scratch_(static_cast<std::size_t>(threads), SamplerScratch(vocab_size)) {}

void StageSamplers::update(const StepPlan& plan) {
  for (const std::uint32_t sequence : plan.retired) samplers_.erase(sequence);
  for (const Admission& admission : plan.admitted) {
    if (admission.prompt_tokens > admission.tokens.size()) {
      throw ModelError(fmt::format(
          "step {}: sequence {} is admitted with {} tokens, {} of them "
          "its prompt",
          plan.step, admission.sequence, admission.tokens.size(), admission.prompt_tokens));
    }
    const auto [at, fresh] =
        samplers_.try_emplace(admission.sequence, admission.sampling, admission.record,
                              admission.tokens, std::size_t{admission.prompt_tokens});
    if (!fresh) {
      throw ModelError(
          fmt::format("step {}: sequence {} is admitted twice", plan.step, admission.sequence));
    }
  }
}

void StageSamplers::sample(const StepPlan& plan, std::span<const float> logits,
                           std::vector<std::int32_t>& ids) {
  chosen_.clear();
  for (const SequenceStep& sequence : plan.sequences) {
    if (!sequence.sample) continue;
    const auto found = samplers_.find(sequence.sequence);
    if (found == samplers_.end()) {
      throw ModelError(fmt::format("step {}: sequence {} samples but was never admitted", plan.step,
                                   sequence.sequence));
    }
    chosen_.push_back(&found->second);
  }
  ids.resize(chosen_.size());
  std::exception_ptr failure;
  const auto count = static_cast<std::ptrdiff_t>(chosen_.size());
#pragma omp parallel for schedule(static) num_threads(threads_) if (count > 1)
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    try {
      const auto index = static_cast<std::size_t>(i);
      ids[index] = chosen_[index]->sample(logits.subspan(index * vocab_size_, vocab_size_),
                                          scratch_[static_cast<std::size_t>(omp_get_thread_num())]);
    } catch (...) {
#pragma omp critical(penstock_sample_failure)
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace penstock::model
