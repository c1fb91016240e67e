#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "jobs/replay.hpp"
#include "model/device_model.hpp"
#include "tests/support/llama_shapes.hpp"

// Replays of a large model whose steps are remembered.
namespace penstock::jobs {

inline std::shared_ptr<const model::PartCost> h100_cost() {
  return model::cost_by_device(tests::llama_70b(), io::DType::bf16, io::DType::bf16,
                               model::device_model("h100-sxm"));
}

// Llama-3.1-70B on H100s over links of 5 us and 40 GB/s. The KV memory is what is left of them
// from four stages on.
inline ReplayPipeline h100s(int stages) {
  const auto parts = h100_cost();
  const auto ranges = model::cut_stages(tests::llama_70b(), stages, io::DType::bf16);
  const auto kv_blocks = static_cast<std::uint32_t>(7000 * stages - 14000);
  const LinkModel link{5e-6, 40e9};
  ReplayPipeline pipeline{{},
                          link,
                          2.0 * 8192,
                          {static_cast<std::uint32_t>(stages) + 1, 2048, 256, kv_blocks},
                          model::StepCost(parts, ranges.back())};
  const model::StepShape decode{64, 64, 64 * 512, 64 * 512};
  for (const model::StageRange& range : ranges) {
    const model::StepCost cost(parts, range);
    if (cost.seconds(decode) > pipeline.planning_cost.seconds(decode)) {
      pipeline.planning_cost = cost;
    }
    pipeline.stages.push_back({cost, link});
  }
  return pipeline;
}

inline std::function<std::optional<ReplayRecord>()> records(
    std::uint64_t count, std::function<ReplayRecord(std::uint64_t)> record) {
  return [=, next = std::uint64_t{0}]() mutable -> std::optional<ReplayRecord> {
    if (next == count) return std::nullopt;
    return record(next++);
  };
}

// What is remembered of a step.
struct Seen {
  std::uint32_t slot = 0;
  std::uint64_t rows = 0;
  std::uint64_t sampled = 0;
  double seconds = 0;    // of its slowest stage
  double predicted = 0;  // by the scheduler's own cost
  double back = 0;
};

struct Watched {
  PipelineTotals totals;
  std::vector<Seen> steps;

  // Steps that were back between two shares of all steps.
  std::span<const Seen> between(double begin, double end) const {
    const auto at = [&](double share) {
      return static_cast<std::size_t>(share * static_cast<double>(steps.size()));
    };
    return std::span(steps).subspan(at(begin), at(end) - at(begin));
  }
  // Share of that time in which the slowest stage computed.
  double fill(double begin, double end) const {
    const std::span<const Seen> some = between(begin, end);
    double busy = 0;
    for (const Seen& step : some) busy += step.seconds;
    return busy / (some.back().back - some.front().back + some.front().seconds);
  }
};

inline Watched watch(const ReplayPipeline& pipeline,
                     std::function<std::optional<ReplayRecord>()> next) {
  Watched watched;
  ReplayWorkload workload(std::move(next));
  watched.totals = replay(pipeline, workload, [&](const ReplayStep& step) {
    Seen seen{step.plan.slot,
              step.shape.rows,
              step.shape.sampled,
              0,
              pipeline.planning_cost.seconds(step.shape),
              std::chrono::duration<double>(step.back).count()};
    for (std::size_t i = 0; i < step.begins.size(); ++i) {
      seen.seconds = std::max(seen.seconds,
                              std::chrono::duration<double>(step.ends[i] - step.begins[i]).count());
    }
    watched.steps.push_back(seen);
  });
  EXPECT_EQ(workload.rejected(), 0u);
  return watched;
}

}  // namespace penstock::jobs
