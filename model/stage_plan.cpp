#include "model/stage_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "model/error.hpp"
#include "model/weights.hpp"

namespace penstock::model {
namespace {

// Seconds are modelled for a device that streams one byte in the time of this many flops. Both
// CPUs and GPUs in bf16 lie at some tens to hundreds; the cut hardly depends on it, since the
// flops of a product are proportional to its bytes.
constexpr double kFlopsPerByte = 32;
// Rows of the step the cut is made for: a decode step of a usual batch.
constexpr double kRows = 64;

double seconds(const StageCost& cost) {
  return static_cast<double>(cost.weight_bytes) + cost.flops_per_token * kRows / kFlopsPerByte;
}

}  // namespace

StageCost cost_of(const ModelConfig& config, const StageRange& range, io::DType dtype) {
  StageCost cost;
  for (const WeightSpec& spec : weight_specs(config)) {
    const bool here = spec.group == WeightGroup::layer
                          ? spec.layer >= range.begin && spec.layer < range.end
                          : (spec.group == WeightGroup::embedding ? range.first : range.last);
    if (!here) continue;
    std::uint64_t elements = 1;
    for (const std::uint64_t n : spec.shape) elements *= n;
    if (spec.group == WeightGroup::embedding) {
      // A look-up: a step touches one row for each token, not the table.
      cost.flops_per_token += static_cast<double>(spec.shape.back());
      continue;
    }
    cost.weight_bytes += elements * (spec.is_matrix ? io::size_of(dtype) : 4);
    if (spec.is_matrix) cost.flops_per_token += 2.0 * static_cast<double>(elements);
  }
  return cost;
}

std::vector<StageRange> cut_stages(const ModelConfig& config, int stages, io::DType dtype) {
  if (stages < 1) throw ModelError("a pipeline needs at least one stage");
  const std::int64_t layers = config.num_layers;
  if (layers < stages) {
    throw ModelError(
        fmt::format("the model has {} layers, too few for {} stages: start at most {} ranks",
                    layers, stages, layers));
  }
  // All layers are alike, so three figures give every range's cost.
  const double one_layer = seconds(cost_of(config, {0, 1, false, false}, dtype));
  const double embedding = seconds(cost_of(config, {0, 0, true, false}, dtype));
  const double head = seconds(cost_of(config, {0, 0, false, true}, dtype));
  const auto extra = [&](int stage) {
    return (stage == 0 ? embedding : 0.0) + (stage == stages - 1 ? head : 0.0);
  };
  // Dynamic programming over (stages, layers): the least possible cost of the slowest stage, and
  // among equals the least sum of squares, which evens out the others.
  struct Best {
    double slowest = std::numeric_limits<double>::infinity();
    double squares = std::numeric_limits<double>::infinity();
    std::int64_t begin = 0;
  };
  const auto width = static_cast<std::size_t>(layers) + 1;
  std::vector<std::vector<Best>> best(static_cast<std::size_t>(stages) + 1,
                                      std::vector<Best>(width));
  best[0][0] = {0, 0, 0};
  for (int stage = 0; stage < stages; ++stage) {
    const auto& before = best[static_cast<std::size_t>(stage)];
    auto& after = best[static_cast<std::size_t>(stage) + 1];
    for (std::int64_t end = stage + 1; end <= layers; ++end) {
      Best& here = after[static_cast<std::size_t>(end)];
      for (std::int64_t begin = stage; begin < end; ++begin) {
        const Best& left = before[static_cast<std::size_t>(begin)];
        const double cost = static_cast<double>(end - begin) * one_layer + extra(stage);
        const Best candidate{std::max(left.slowest, cost), left.squares + cost * cost, begin};
        if (candidate.slowest < here.slowest ||
            (candidate.slowest == here.slowest && candidate.squares < here.squares)) {
          here = candidate;
        }
      }
    }
  }
  std::vector<StageRange> ranges(static_cast<std::size_t>(stages));
  std::int64_t end = layers;
  for (int stage = stages - 1; stage >= 0; --stage) {
    const std::int64_t begin =
        best[static_cast<std::size_t>(stage) + 1][static_cast<std::size_t>(end)].begin;
    ranges[static_cast<std::size_t>(stage)] = {begin, end, stage == 0, stage == stages - 1};
    end = begin;
  }
  return ranges;
}

void check_stage_range(const ModelConfig& config, const StageRange& range) {
  if (range.begin < 0 || range.begin >= range.end || range.end > config.num_layers ||
      range.first != (range.begin == 0) || range.last != (range.end == config.num_layers)) {
    throw ModelError(fmt::format("layers [{}, {}) of {} are no stage", range.begin, range.end,
                                 config.num_layers));
  }
}

}  // namespace penstock::model
