#pragma once

#include <cstdint>
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

// The only place where layers meet ranks. Cuts num_layers into `stages` contiguous, non-empty
// ranges so that the slowest stage is as fast as it can be, by weight bytes and flops with
// embedding and head counted. Throws ModelError when there are fewer layers than stages.
std::vector<StageRange> cut_stages(const ModelConfig& config, int stages, io::DType dtype);

// Throws ModelError unless `range` are layers of the model, with `first` and `last` as they must
// be.
void check_stage_range(const ModelConfig& config, const StageRange& range);

}  // namespace penstock::model
