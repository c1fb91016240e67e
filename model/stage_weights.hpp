#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/load_weights.hpp"
#include "model/ops/host_buffer.hpp"
#include "model/ops/linear.hpp"
#include "model/stage.hpp"

namespace penstock::model {

// A layer's weights as the ops want them: q, k and v as one product, gate and up likewise.
struct LayerWeights {
  std::vector<float> attn_norm;
  std::unique_ptr<Linear> qkv;
  std::unique_ptr<Linear> o;
  std::vector<float> mlp_norm;
  std::unique_ptr<Linear> gate_up;
  std::unique_ptr<Linear> down;
};

struct StageWeights {
  HostBuffer embedding;  // [vocab, hidden], first stage only
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm;  // last stage only
  std::unique_ptr<Linear> head;   // last stage only
  std::uint64_t resident_bytes = 0;
};

// The products of a stage.
struct StageShapes {
  LinearShape qkv, o, gate_up, down, head;
};
StageShapes stage_shapes(const ModelConfig& config, const StageOptions& options);

// Before any weight is in memory: the proof of a product needs as much itself.
void prepare_products(LinearFactory& factory, const ModelConfig& config, const StageRange& range,
                      const StageOptions& options);

// The largest product's weight as it lies before it is packed.
std::uint64_t largest_plain_bytes(const ModelConfig& config, const StageRange& range,
                                  const StageOptions& options);

// Reads and packs tensor by tensor, behind prepare_products(): at no time is there more than the
// packed weights and one plain tensor (one more where the checkpoint's dtype is another).
StageWeights load_stage_weights(WeightLoader& loader, LinearFactory& factory,
                                const ModelConfig& config, const StageRange& range,
                                const StageOptions& options);

}  // namespace penstock::model
