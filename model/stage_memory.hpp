#pragma once

#include <cstdint>

#include "model/config.hpp"
#include "model/stage.hpp"
#include "model/stage_plan.hpp"

namespace penstock::model {

// What a stage takes of a GPU's memory, reckoned as a GPU stage does, without a GPU.
struct StageMemory {
  std::uint64_t weight_bytes = 0;
  std::uint64_t step_bytes = 0;        // what the largest step needs
  std::uint64_t activation_bytes = 0;  // between stages, of as many steps as there are slots
  std::uint64_t kv_block_bytes = 0;    // one block, all layers of the stage

  // What is left for KV blocks on a GPU with so much memory.
  std::uint64_t kv_bytes(std::uint64_t memory_bytes) const;
};

// ModelError for options that make no stage.
StageMemory stage_memory(const ModelConfig& config, const StageRange& range,
                         const StageOptions& options);

}  // namespace penstock::model
