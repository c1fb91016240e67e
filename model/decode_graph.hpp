#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <utility>

#include "model/ops/attention.hpp"
#include "model/step_plan.hpp"

namespace penstock::model {

// Rows of the largest decode step that is replayed from a graph; the kernels of a larger one run
// longer than it takes to launch them.
inline constexpr std::uint32_t kMostGraphRows = 512;

// Rows for which graphs are made: `rows`, 1 … kMostGraphRows, rounded up to 1, 2, 4, 8, and then to
// the numbers that products round up to anyway.
std::uint32_t graph_rows(std::uint32_t rows);

// What a graph is made for: steps of no more than that. Its launches, and the places of its lists,
// depend on nothing else.
struct GraphKey {
  std::uint32_t rows = 0;    // all of them sampled on the last stage
  std::uint32_t narrow = 0;  // attention's tasks
  std::uint32_t merges = 0;
  auto operator<=>(const GraphKey&) const = default;
};

// The key of a step in which every sequence has one row and samples; none for other steps, for
// those of more than `most_rows` rows, rounded up, and where attention found no room for one task
// for each split.
std::optional<GraphKey> graph_key(const StepPlan& plan, const AttentionPlan& attention,
                                  const AttentionShape& shape, std::uint32_t most_rows);

// At most `capacity` graphs, of which the one that was not used for longest goes first.
template <class Graph>
class GraphCache {
 public:
  explicit GraphCache(std::size_t capacity) : capacity_(capacity) {}

  // Null: there is none.
  Graph* find(const GraphKey& key) {
    for (auto at = graphs_.begin(); at != graphs_.end(); ++at) {
      if (at->first != key) continue;
      graphs_.splice(graphs_.begin(), graphs_, at);
      return &graphs_.front().second;
    }
    return nullptr;
  }

  void insert(const GraphKey& key, Graph graph) {
    if (graphs_.size() == capacity_) graphs_.pop_back();
    graphs_.emplace_front(key, std::move(graph));
  }

  std::size_t size() const { return graphs_.size(); }
  void clear() { graphs_.clear(); }

 private:
  std::size_t capacity_;
  std::list<std::pair<GraphKey, Graph>> graphs_;  // the last used first
};

}  // namespace penstock::model
