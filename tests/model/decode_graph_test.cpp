#include "model/decode_graph.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

#include "model/ops/product_rows.hpp"

namespace penstock::model {
namespace {

AttentionShape shape_of(std::uint32_t group) {
  AttentionShape shape;
  shape.group = group;
  shape.narrow_queries = std::min(group, 16u);
  shape.partial_floats = 8;
  return shape;
}

// One row for each of `positions`.
StepPlan decode_of(const std::vector<std::uint32_t>& positions) {
  StepPlan plan;
  for (const std::uint32_t position : positions) {
    SequenceStep sequence;
    sequence.first_row = plan.rows();
    sequence.rows = 1;
    sequence.position = position;
    sequence.sample = true;
    plan.sequences.push_back(sequence);
    plan.tokens.push_back(0);
  }
  return plan;
}

AttentionPlan attention_of(const AttentionShape& shape, const StepPlan& plan,
                           std::uint32_t partials = 10000) {
  AttentionPlan attention;
  plan_attention(shape, plan.sequences, attention_limits(shape, 1000, 1000, 8192, partials),
                 attention);
  return attention;
}

TEST(GraphRows, AreFewAndCostProductsNothing) {
  std::set<std::uint32_t> buckets;
  for (std::uint32_t rows = 1; rows <= kMostGraphRows; ++rows) {
    const std::uint32_t bucket = graph_rows(rows);
    EXPECT_GE(bucket, rows);
    EXPECT_LE(bucket, kMostGraphRows);
    EXPECT_EQ(graph_rows(bucket), bucket);
    EXPECT_EQ(product_row_bucket(bucket), product_row_bucket(rows));
    buckets.insert(bucket);
  }
  EXPECT_EQ(buckets, (std::set<std::uint32_t>{1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 320,
                                              384, 448, 512}));
}

TEST(GraphKeyTest, RoundsUpWhatAStepHas) {
  const AttentionShape shape = shape_of(4);
  // Positions 0 … 255 are one split, 256 … 511 two.
  const auto key = [&](const std::vector<std::uint32_t>& positions) {
    const StepPlan plan = decode_of(positions);
    return graph_key(plan, attention_of(shape, plan), shape, 512).value();
  };
  EXPECT_EQ(key({0, 255, 100}), (GraphKey{4, 4, 0}));
  EXPECT_EQ(key({0, 255, 100, 7}), (GraphKey{4, 4, 0}));
  EXPECT_EQ(key({0, 256, 100}), (GraphKey{4, 4, 4}));        // 4 tasks, one merge
  EXPECT_EQ(key({0, 256, 100, 7}), (GraphKey{4, 8, 4}));     // 5 tasks
  EXPECT_EQ(key({1023, 1023, 1023}), (GraphKey{4, 16, 4}));  // 12 tasks
  EXPECT_EQ(key({8191}), (GraphKey{1, 32, 1}));
}

// More than 16 query heads of a kv head are several tasks for each row.
TEST(GraphKeyTest, CountsTheTasksOfARow) {
  const AttentionShape shape = shape_of(40);
  const StepPlan plan = decode_of({0, 300});
  EXPECT_EQ(graph_key(plan, attention_of(shape, plan), shape, 512), (GraphKey{2, 12, 6}));
}

TEST(GraphKeyTest, ThereIsRoomForWhatTheStepHas) {
  for (const std::uint32_t group : {1u, 4u, 40u}) {
    const AttentionShape shape = shape_of(group);
    for (std::uint32_t rows = 1; rows <= 70; ++rows) {
      std::vector<std::uint32_t> positions;
      for (std::uint32_t i = 0; i < rows; ++i) positions.push_back((i * 977 + rows * 31) % 3000);
      const StepPlan plan = decode_of(positions);
      const AttentionPlan attention = attention_of(shape, plan);
      const auto key = graph_key(plan, attention, shape, 512).value();
      EXPECT_GE(key.rows, rows);
      EXPECT_GE(key.narrow, attention.narrow.size());
      EXPECT_GE(key.merges, attention.merges.size());
    }
  }
}

TEST(GraphKeyTest, OtherStepsHaveNone) {
  const AttentionShape shape = shape_of(4);
  StepPlan plan = decode_of({5, 6, 7});
  const AttentionPlan attention = attention_of(shape, plan);
  EXPECT_TRUE(graph_key(plan, attention, shape, 4).has_value());
  EXPECT_FALSE(graph_key(plan, attention, shape, 3).has_value());  // buffers for 3 rows
  EXPECT_FALSE(graph_key(StepPlan{}, attention, shape, 4).has_value());
  plan.sequences[1].sample = false;
  EXPECT_FALSE(graph_key(plan, attention, shape, 4).has_value());
  plan.sequences[1].sample = true;
  plan.sequences[1].rows = 2;
  plan.tokens.push_back(0);
  EXPECT_FALSE(graph_key(plan, attention, shape, 4).has_value());

  const StepPlan large = decode_of(std::vector<std::uint32_t>(513, 9));
  EXPECT_FALSE(graph_key(large, attention_of(shape, large), shape, 1000).has_value());

  // No room for partial results: the row is walked as prefill is.
  const StepPlan split = decode_of({300});
  EXPECT_FALSE(graph_key(split, attention_of(shape, split, 1), shape, 512).has_value());
}

TEST(GraphCacheTest, ForgetsWhatWasNotUsedForLongest) {
  GraphCache<std::unique_ptr<int>> cache(2);
  const GraphKey a{1, 1, 0}, b{1, 1, 1}, c{2, 1, 1};
  EXPECT_EQ(cache.find(a), nullptr);
  cache.insert(a, std::make_unique<int>(1));
  cache.insert(b, std::make_unique<int>(2));
  ASSERT_NE(cache.find(a), nullptr);  // so b is the older
  cache.insert(c, std::make_unique<int>(3));
  EXPECT_EQ(cache.size(), 2u);
  EXPECT_EQ(cache.find(b), nullptr);
  EXPECT_EQ(**cache.find(a), 1);
  EXPECT_EQ(**cache.find(c), 3);
}

}  // namespace
}  // namespace penstock::model
