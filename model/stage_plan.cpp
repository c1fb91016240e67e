#include "model/stage_plan.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <string>

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

void check_counts(std::int64_t layers, std::size_t stages) {
  if (stages < 1) throw ModelError("a pipeline needs at least one stage");
  if (static_cast<std::size_t>(layers) < stages) {
    throw ModelError(
        fmt::format("the model has {} layers, too few for {} stages: start at most {} ranks",
                    layers, stages, layers));
  }
}

// What the ends of the pipeline have besides layers.
template <class T>
T extra(const T& embedding, const T& head, std::size_t stage, std::size_t stages) {
  return (stage == 0 ? embedding : T{}) + (stage + 1 == stages ? head : T{});
}

std::string gigabytes(std::uint64_t bytes) {
  return fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9);
}

// The layers that each rank has memory for. Throws ModelError where a rank has none for a single
// one, or all together too little.
std::vector<std::int64_t> most_layers(std::int64_t layers, std::span<const StageRank> ranks,
                                      const PartBytes& bytes) {
  std::vector<std::int64_t> most;
  std::int64_t sum = 0;
  std::string list;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const std::uint64_t memory = ranks[i].memory_bytes;
    const std::uint64_t ends = extra(bytes.embedding, bytes.head, i, ranks.size());
    const std::uint64_t least = ends + bytes.layer;
    if (memory < least) {
      throw ModelError(fmt::format(
          "stage {} has {} of memory, but one layer with its KV cache{}{} takes {}: {} are "
          "missing; "
          "use a rank with more memory, or fewer ranks on its node",
          i, gigabytes(memory), i == 0 ? ", the embedding" : "",
          i + 1 == ranks.size() ? ", the head" : "", gigabytes(least), gigabytes(least - memory)));
    }
    const std::uint64_t fit =
        bytes.layer == 0 ? static_cast<std::uint64_t>(layers) : (memory - ends) / bytes.layer;
    most.push_back(static_cast<std::int64_t>(std::min(fit, static_cast<std::uint64_t>(layers))));
    sum += most.back();
    list += fmt::format("{}stage {} holds {} in {}", i == 0 ? "" : ", ", i, most.back(),
                        gigabytes(memory));
  }
  if (sum < layers) {
    const auto missing = static_cast<std::uint64_t>(layers - sum);
    throw ModelError(fmt::format(
        "the stages have memory for {} of the {} layers, with their KV cache: {}; {} layers of {}, "
        "{}, are missing: use more ranks, or such with more memory",
        sum, layers, list, missing, gigabytes(bytes.layer), gigabytes(missing * bytes.layer)));
  }
  return most;
}

// Dynamic programming over (stages, layers): of all cuts whose stages' costs are at most `limit`
// the one for which what `join` makes of them is least. The layers' ends, in order.
template <class Cost, class Join>
std::vector<std::int64_t> best_ends(std::int64_t layers, const std::vector<std::int64_t>& most,
                                    const Cost& cost, double limit, const Join& join) {
  struct Best {
    double value = std::numeric_limits<double>::infinity();
    std::int64_t begin = 0;
  };
  const std::size_t stages = most.size();
  std::vector<std::vector<Best>> best(stages + 1,
                                      std::vector<Best>(static_cast<std::size_t>(layers) + 1));
  best[0][0].value = 0;
  for (std::size_t stage = 0; stage < stages; ++stage) {
    const auto first = static_cast<std::int64_t>(stage);
    for (std::int64_t end = first + 1; end <= layers; ++end) {
      Best& here = best[stage + 1][static_cast<std::size_t>(end)];
      for (std::int64_t begin = std::max(first, end - most[stage]); begin < end; ++begin) {
        const double seconds = cost(stage, end - begin);
        if (seconds > limit) continue;
        const double value = join(best[stage][static_cast<std::size_t>(begin)].value, seconds);
        if (value < here.value) here = {value, begin};
      }
    }
  }
  std::vector<std::int64_t> ends(stages);
  std::int64_t end = layers;
  for (std::size_t stage = stages; stage-- > 0;) {
    ends[stage] = end;
    end = best[stage + 1][static_cast<std::size_t>(end)].begin;
  }
  return ends;
}

std::vector<StageRange> ranges_of(const std::vector<std::int64_t>& ends) {
  std::vector<StageRange> ranges;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    ranges.push_back({begin, ends[i], i == 0, i + 1 == ends.size()});
    begin = ends[i];
  }
  return ranges;
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

PartBytes part_bytes(const ModelConfig& config, io::DType dtype, io::DType kv_dtype,
                     std::uint64_t kv_tokens) {
  PartBytes bytes;
  bytes.embedding =
      static_cast<std::uint64_t>(config.vocab_size * config.hidden_size) * io::size_of(dtype);
  bytes.layer = cost_of(config, {0, 1, false, false}, dtype).weight_bytes +
                kv_tokens * 2 * static_cast<std::uint64_t>(config.num_kv_heads * config.head_dim) *
                    io::size_of(kv_dtype);
  bytes.head = cost_of(config, {0, 0, false, true}, dtype).weight_bytes;
  return bytes;
}

std::vector<StageRange> cut_stages(std::int64_t layers, std::span<const StageRank> ranks,
                                   const PartBytes& bytes) {
  check_counts(layers, ranks.size());
  const std::vector<std::int64_t> most = most_layers(layers, ranks, bytes);
  const auto cost = [&](std::size_t stage, std::int64_t count) {
    const PartSeconds& parts = ranks[stage].seconds;
    return parts.step + static_cast<double>(count) * parts.layer +
           extra(parts.embedding, parts.head, stage, ranks.size());
  };
  const auto slower = [](double before, double here) { return std::max(before, here); };
  const auto squares = [](double before, double here) { return before + here * here; };
  constexpr double kNoLimit = std::numeric_limits<double>::infinity();
  // What is even depends on all stages, so the slowest must be known before.
  double slowest = 0;
  const auto fastest = ranges_of(best_ends(layers, most, cost, kNoLimit, slower));
  for (std::size_t i = 0; i < fastest.size(); ++i) {
    slowest = std::max(slowest, cost(i, fastest[i].layers()));
  }
  return ranges_of(best_ends(layers, most, cost, slowest, squares));
}

std::vector<StageRange> cut_stages(const ModelConfig& config, int stages, io::DType dtype) {
  const auto count = static_cast<std::size_t>(std::max(stages, 0));
  check_counts(config.num_layers, count);
  StageRank rank;
  rank.seconds.embedding = seconds(cost_of(config, {0, 0, true, false}, dtype));
  rank.seconds.layer = seconds(cost_of(config, {0, 1, false, false}, dtype));
  rank.seconds.head = seconds(cost_of(config, {0, 0, false, true}, dtype));
  return cut_stages(config.num_layers, std::vector<StageRank>(count, rank), {});
}

std::vector<StageRange> stages_of(const ModelConfig& config, int stages,
                                  std::span<const std::int64_t> layers) {
  if (layers.size() != static_cast<std::size_t>(stages)) {
    throw ModelError(
        fmt::format("--layers has {} numbers, but there are {} stages", layers.size(), stages));
  }
  std::vector<std::int64_t> ends;
  std::int64_t sum = 0;
  for (const std::int64_t count : layers) {
    if (count < 1 || count > config.num_layers) {
      throw ModelError(
          fmt::format("--layers: a stage has 1 to {} layers, not {}", config.num_layers, count));
    }
    ends.push_back(sum += count);
  }
  if (sum != config.num_layers) {
    throw ModelError(fmt::format("--layers {} are {} layers together; the model has {}",
                                 fmt::join(layers, ","), sum, config.num_layers));
  }
  return ranges_of(ends);
}

void check_stage_range(const ModelConfig& config, const StageRange& range) {
  if (range.begin < 0 || range.begin >= range.end || range.end > config.num_layers ||
      range.first != (range.begin == 0) || range.last != (range.end == config.num_layers)) {
    throw ModelError(fmt::format("layers [{}, {}) of {} are no stage", range.begin, range.end,
                                 config.num_layers));
  }
}

}  // namespace penstock::model
