#include "model/step_cost.hpp"

namespace penstock::model {

StepCost::StepCost(const ModelConfig& config, const StageRange& range, io::DType dtype,
                   io::DType kv_dtype, const MachineLimits& limits) {
  StageRange body = range;
  body.last = false;
  const StageCost layers = cost_of(config, body, dtype);
  const StageCost all = cost_of(config, range, dtype);
  const auto local_layers = static_cast<double>(range.layers());
  const auto heads_width = static_cast<double>(config.num_heads * config.head_dim);
  const auto kv_width = static_cast<double>(config.num_kv_heads * config.head_dim);
  per_step_ = static_cast<double>(all.weight_bytes) / limits.bytes_per_second;
  per_row_ = layers.flops_per_token / limits.flops_per_second;
  per_sampled_ = (all.flops_per_token - layers.flops_per_token) / limits.flops_per_second;
  // Scores and their weighted sum: two multiply-adds for each head dimension and position.
  per_attended_ = 4.0 * heads_width * local_layers / limits.flops_per_second;
  per_cached_ = 2.0 * kv_width * static_cast<double>(io::size_of(kv_dtype)) * local_layers /
                limits.bytes_per_second;
}

double StepCost::seconds(const StepShape& shape) const {
  return per_step_ + per_row_ * static_cast<double>(shape.rows) +
         per_sampled_ * static_cast<double>(shape.sampled) +
         per_attended_ * static_cast<double>(shape.attended) +
         per_cached_ * static_cast<double>(shape.cached);
}

}  // namespace penstock::model
