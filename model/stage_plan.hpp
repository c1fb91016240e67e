#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "io/dtype.hpp"
#include "model/config.hpp"

namespace penstock::model {

// The layers [begin, end) of one stage. The first stage also holds the embedding, the last the
// final norm and the LM head.
struct StageRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool first = false;
  bool last = false;
  std::int64_t layers() const { return end - begin; }
};

// What one layer, the embedding and the head cost a stage: the weights it streams and the
// arithmetic of a token.
struct StageCost {
  std::uint64_t weight_bytes = 0;
  double flops_per_token = 0;
};

StageCost cost_of(const ModelConfig& config, const StageRange& range, io::DType dtype);

// What the parts of the network take on one device, all layers being alike: time for a step of some
// shape, in seconds.
struct PartSeconds {
  double step = 0;  // whatever its layers
  double embedding = 0;
  double layer = 0;
  double head = 0;
};

// Memory: weights, and with a layer the KV cache that it is to have.
struct PartBytes {
  std::uint64_t embedding = 0;
  std::uint64_t layer = 0;
  std::uint64_t head = 0;
};

// Weights in their dtypes, and keys and values of `kv_tokens` tokens.
PartBytes part_bytes(const ModelConfig& config, io::DType dtype, io::DType kv_dtype,
                     std::uint64_t kv_tokens);

// What the rank of a stage brings.
struct StageRank {
  PartSeconds seconds;
  // For what PartBytes counts.
  std::uint64_t memory_bytes = std::numeric_limits<std::uint64_t>::max();
};

// The only place where layers meet ranks. Cuts `layers` into contiguous, non-empty ranges, one for
// each of `ranks` in their order, that fit their memory, so that the slowest stage is as fast as it
// can be and, of all such cuts, the stages' times are the most even (the least sum of squares).
// Throws ModelError when there are fewer layers than ranks, or too little memory: whose, and how
// much is missing.
std::vector<StageRange> cut_stages(std::int64_t layers, std::span<const StageRank> ranks,
                                   const PartBytes& bytes);

// The same for `stages` ranks that are alike and have memory enough, by weight bytes and flops of
// a decode step.
std::vector<StageRange> cut_stages(const ModelConfig& config, int stages, io::DType dtype);

// Stages of so many layers each. Throws ModelError unless there are `stages` of them, none is
// empty, and their sum is the model's.
std::vector<StageRange> stages_of(const ModelConfig& config, int stages,
                                  std::span<const std::int64_t> layers);

// Throws ModelError unless `range` are layers of the model, with `first` and `last` as they must
// be.
void check_stage_range(const ModelConfig& config, const StageRange& range);

}  // namespace penstock::model
