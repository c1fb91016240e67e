#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "model/config.hpp"
#include "model/load_weights.hpp"
#include "model/stage.hpp"
#include "model/stage_plan.hpp"

namespace penstock::model {

// A tensor, or what of it lies between two checksum blocks, on its way into a stage's weights.
struct WeightPiece {
  const io::TensorInfo* tensor = nullptr;
  std::uint64_t first_byte = 0;      // of the tensor as it is stored: a multiple of a block
  std::uint64_t size_bytes = 0;      // a block, or the tensor's rest
  io::DType dtype = io::DType::f32;  // that it becomes
  std::uint64_t place = 0;           // bytes from the start of the stage's weights
};

// Where everything of a stage lies in one piece of memory, in bytes from its start, at multiples of
// kGpuAlignment. Matrices and biases are in the stage's dtype, norms in f32.
struct WeightPlaces {
  struct Product {
    std::uint64_t weight = 0;
    std::uint64_t bias = 0;  // where there is one
  };
  struct Layer {
    std::uint64_t attn_norm = 0;
    Product qkv, o;
    std::uint64_t mlp_norm = 0;
    Product gate_up, down;
  };
  std::uint64_t embedding = 0;  // first stage
  std::vector<Layer> layers;
  std::uint64_t final_norm = 0;  // last stage
  Product head;                  // last stage
  std::uint64_t bytes = 0;
  std::vector<WeightPiece> pieces;  // of all tensors, in the order of the file
};

WeightPlaces place_weights(const WeightLoader& tensors, const ModelConfig& config,
                           const StageRange& range, const StageOptions& options);

}  // namespace penstock::model
