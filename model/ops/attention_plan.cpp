#include <algorithm>

#include "model/ops/attention.hpp"

namespace penstock::model {
namespace {

std::uint32_t divide_up(std::uint32_t value, std::uint32_t step) {
  return static_cast<std::uint32_t>((std::uint64_t{value} + step - 1) / step);
}

// A row alone in its step: its queries, a task for each split, if there is room for them.
bool plan_alone(const AttentionShape& shape, const SequenceStep& sequence,
                const AttentionLimits& limits, AttentionPlan& plan) {
  const std::uint32_t tasks = divide_up(shape.group, shape.narrow_queries);
  const std::uint32_t splits = sequence.position / kAttentionSplitTokens + 1;
  const std::uint64_t narrow = plan.narrow.size() + std::uint64_t{tasks} * splits;
  const std::uint64_t merges = plan.merges.size() + (splits > 1 ? tasks : 0);
  const std::uint64_t partials = plan.partials + (splits > 1 ? std::uint64_t{tasks} * splits : 0);
  if (narrow > limits.narrow || merges > limits.merges || partials > limits.partials) return false;
  for (std::uint32_t first = 0; first < shape.group; first += shape.narrow_queries) {
    AttentionTask task;
    task.row = sequence.first_row;
    task.position = sequence.position;
    task.first = first;
    task.queries = std::min(shape.narrow_queries, shape.group - first);
    task.blocks = sequence.first_block;
    task.splits = 1;
    if (splits > 1) {
      plan.merges.push_back({task.row, first, task.queries, plan.partials, splits});
    }
    for (std::uint32_t split = 0; split < splits; ++split) {
      task.first_split = split;
      task.partial = splits > 1 ? plan.partials++ : kNoPartial;
      plan.narrow.push_back(task);
    }
  }
  return true;
}

void plan_together(const AttentionShape& shape, const SequenceStep& sequence, AttentionPlan& plan) {
  const std::uint32_t queries = sequence.rows * shape.group;
  // The last rows have the most to read: they go first.
  for (std::uint32_t tile = divide_up(queries, shape.wide_queries); tile-- > 0;) {
    AttentionTask task;
    task.row = sequence.first_row;
    task.position = sequence.position;
    task.first = tile * shape.wide_queries;
    task.queries = std::min(shape.wide_queries, queries - task.first);
    task.blocks = sequence.first_block;
    const std::uint32_t last = sequence.position + (task.first + task.queries - 1) / shape.group;
    task.splits = last / kAttentionSplitTokens + 1;
    task.partial = kNoPartial;
    plan.wide.push_back(task);
  }
}

}  // namespace

AttentionLimits attention_limits(const AttentionShape& shape, std::uint32_t rows,
                                 std::uint32_t sequences, std::uint32_t context,
                                 std::uint32_t partials) {
  const std::uint32_t tasks = divide_up(shape.group, shape.narrow_queries);
  const std::uint32_t splits = divide_up(std::max(context, 1u), kAttentionSplitTokens);
  const std::uint64_t narrow = std::uint64_t{sequences} * tasks * splits;
  AttentionLimits limits;
  // Every sequence may leave its last tile unfilled.
  limits.wide = divide_up(rows * shape.group, shape.wide_queries) + std::min(rows, sequences);
  limits.merges = sequences * tasks;
  limits.partials = static_cast<std::uint32_t>(std::min<std::uint64_t>(partials, narrow));
  // Rows of one split need no partial result.
  limits.narrow = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(narrow, std::uint64_t{limits.partials} + sequences * tasks));
  return limits;
}

void plan_attention(const AttentionShape& shape, std::span<const SequenceStep> sequences,
                    const AttentionLimits& limits, AttentionPlan& plan) {
  plan.wide.clear();
  plan.narrow.clear();
  plan.merges.clear();
  plan.partials = 0;
  for (const SequenceStep& sequence : sequences) {
    if (sequence.rows == 1 && plan_alone(shape, sequence, limits, plan)) continue;
    if (sequence.rows > 0) plan_together(shape, sequence, plan);
  }
}

}  // namespace penstock::model
