#include "model/stage_idle.hpp"

#include <algorithm>

#include "model/host_bytes.hpp"

namespace penstock::model {

std::unique_ptr<ActivationBuffer> IdleStage::make_activations(std::size_t bytes) const {
  return std::make_unique<HostBytes>(std::max<std::size_t>(bytes, 1));
}

void IdleStage::forward(const StepPlan& plan, std::span<const std::byte> /*in*/,
                        std::span<std::byte> /*out*/, const std::function<void()>& /*progress*/) {
  const auto samples = std::ranges::count_if(plan.sequences, &SequenceStep::sample);
  sampled_.assign(static_cast<std::size_t>(samples), 0);
}

std::unique_ptr<Stage> make_idle_stage(std::size_t row_bytes) {
  return std::make_unique<IdleStage>(row_bytes);
}

}  // namespace penstock::model
