#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "model/decode_graph.hpp"
#include "model/gpu_sizes.hpp"
#include "model/ops/attention.hpp"
#include "model/ops/sample.hpp"
#include "model/step_lists.hpp"
#include "model/step_plan.hpp"

namespace penstock::model {

// A step as its kernels see it; its lists are in the GPU's memory.
struct GpuStep {
  std::uint32_t rows = 0;     // with those that only fill up a graph
  std::uint32_t samples = 0;  // likewise; 0 but on the last stage
  bool all_sampled = false;   // sample i is row i
  AttentionCounts most;       // as CudaAttention's
  StepLayout layout;
  std::optional<GraphKey> key;  // what the graph of such steps is found by; none: it has none
};

// Makes plans into steps.
class GpuStepMaker {
 public:
  // `last`: of the last stage.
  GpuStepMaker(const GpuStepLimits& limits, const AttentionShape& shape,
               const AttentionLimits& attention, bool last)
      : limits_(limits), shape_(shape), attention_limits_(attention), last_(last) {}
  GpuStepMaker() = default;

  // Of a plan that was checked. Writes its lists, for which `lists` has room as largest_step()
  // says, to be copied up to layout.bytes. `sampling`: GpuSamplers' rows on the last stage.
  GpuStep make(const StepPlan& plan, std::span<const SampleRow> sampling,
               std::uint32_t scratch_block, std::span<std::byte> lists);

 private:
  GpuStepLimits limits_;
  AttentionShape shape_;
  AttentionLimits attention_limits_;
  bool last_ = false;
  AttentionPlan attention_;  // kept for its memory
};

}  // namespace penstock::model
