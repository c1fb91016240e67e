#include "model/decode_graph.hpp"

#include <algorithm>
#include <bit>

#include "model/ops/product_rows.hpp"

namespace penstock::model {

std::uint32_t graph_rows(std::uint32_t rows) {
  if (rows <= 8) return std::bit_ceil(rows);
  return static_cast<std::uint32_t>(product_row_bucket(rows));
}

std::optional<GraphKey> graph_key(const StepPlan& plan, const AttentionPlan& attention,
                                  const AttentionShape& shape, std::uint32_t most_rows) {
  const bool decode = std::ranges::all_of(
      plan.sequences, [](const SequenceStep& s) { return s.rows == 1 && s.sample; });
  if (!decode || plan.rows() == 0 || !attention.wide.empty()) return std::nullopt;
  GraphKey key;
  key.rows = plan.rows() > kMostGraphRows ? plan.rows() : graph_rows(plan.rows());
  if (key.rows > std::min(most_rows, kMostGraphRows)) return std::nullopt;
  // Of the tasks, all rows have as many when their contexts are of one length.
  const std::uint32_t tasks =
      key.rows * ((shape.group + shape.narrow_queries - 1) / shape.narrow_queries);
  const auto narrow = static_cast<std::uint32_t>(attention.narrow.size());
  key.narrow = tasks * std::bit_ceil((narrow + tasks - 1) / tasks);
  key.merges = attention.merges.empty() ? 0 : tasks;
  return key;
}

}  // namespace penstock::model
