#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.hpp"

namespace penstock::model {

enum class WeightGroup { embedding, layer, final_norm, head };

// One tensor of the model: the declarative list that converting, checking, loading and
// reporting all walk.
struct WeightSpec {
  std::string name;                  // in the checkpoint: "/layers/0003/attn/q"
  std::string hf_name;               // "model.layers.3.self_attn.q_proj.weight"
  std::string gguf_name;             // "blk.3.attn_q.weight"
  std::vector<std::uint64_t> shape;  // row-major, [out_features, in_features] for matrices
  WeightGroup group = WeightGroup::layer;
  std::int64_t layer = -1;  // of WeightGroup::layer
  bool is_matrix = false;   // stored in the checkpoint's dtype; vectors are f32
};

// All tensors in file order: /embed/weight; for each layer attn/norm, attn/q, attn/k, attn/v,
// attn/o (with q_bias … if attention_bias), mlp/norm, mlp/gate, mlp/up, mlp/down (with biases if
// mlp_bias); /final/norm; /head/weight. A tied head is stored as a tensor of its own, a copy of the
// embedding, so that the last stage reads only its own bytes.
std::vector<WeightSpec> weight_specs(const ModelConfig& config);

}  // namespace penstock::model
