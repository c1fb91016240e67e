#include "model/plan_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "model/error.hpp"

namespace penstock::model {
namespace {

template <class... Args>
[[noreturn]] void refuse(const StepPlan& plan, fmt::format_string<Args...> reason, Args&&... args) {
  throw ModelError(
      fmt::format("step {}: {}", plan.step, fmt::format(reason, std::forward<Args>(args)...)));
}

void check_sequence(const StepPlan& plan, const SequenceStep& sequence, std::size_t first_row,
                    const ModelConfig& config, const StageLimits& limits) {
  const std::uint32_t id = sequence.sequence;
  if (sequence.rows == 0) refuse(plan, "sequence {} has no rows", id);
  if (sequence.first_row != first_row) {
    refuse(plan, "sequence {} starts at row {}, not {}", id, sequence.first_row, first_row);
  }
  const std::uint64_t end = std::uint64_t{sequence.position} + sequence.rows;
  if (end > static_cast<std::uint64_t>(config.max_position)) {
    refuse(plan, "sequence {} reaches position {}, the context has {}", id, end - 1,
           config.max_position);
  }
  const std::uint64_t blocks = (end + kKvBlockTokens - 1) / kKvBlockTokens;
  if (sequence.blocks != blocks ||
      std::uint64_t{sequence.first_block} + blocks > plan.block_table.size()) {
    refuse(plan, "sequence {} of {} tokens needs {} KV blocks, not {} from entry {} of {}", id, end,
           blocks, sequence.blocks, sequence.first_block, plan.block_table.size());
  }
  for (std::size_t i = 0; i < blocks; ++i) {
    const std::uint32_t block = plan.block_table[sequence.first_block + i];
    if (block >= limits.kv_blocks) {
      refuse(plan, "sequence {} uses KV block {}, the cache has {}", id, block, limits.kv_blocks);
    }
  }
}

}  // namespace

void check_plan(const StepPlan& plan, const ModelConfig& config, const StageLimits& limits) {
  if (plan.tokens.size() > limits.max_rows) {
    refuse(plan, "{} rows, the stage was built for {}", plan.tokens.size(), limits.max_rows);
  }
  for (const std::int32_t token : plan.tokens) {
    if (token < 0 || token >= config.vocab_size) {
      refuse(plan, "token id {} is outside the vocabulary of {}", token, config.vocab_size);
    }
  }
  std::size_t rows = 0;
  std::size_t samples = 0;
  std::vector<std::uint32_t> ids;
  ids.reserve(plan.sequences.size());
  for (const SequenceStep& sequence : plan.sequences) {
    check_sequence(plan, sequence, rows, config, limits);
    rows += sequence.rows;
    samples += sequence.sample ? 1 : 0;
    ids.push_back(sequence.sequence);
  }
  if (rows != plan.tokens.size()) {
    refuse(plan, "sequences hold {} rows, the plan {} tokens", rows, plan.tokens.size());
  }
  if (samples > limits.max_samples) {
    refuse(plan, "{} rows to sample, the stage was built for {}", samples, limits.max_samples);
  }
  std::sort(ids.begin(), ids.end());
  const auto twice = std::adjacent_find(ids.begin(), ids.end());
  if (twice != ids.end()) refuse(plan, "sequence {} appears twice", *twice);
}

}  // namespace penstock::model
