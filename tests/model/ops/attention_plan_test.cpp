#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <tuple>

#include "model/ops/attention.hpp"

namespace penstock::model {
namespace {

AttentionShape shape_of(std::uint32_t group, std::uint32_t wide_queries) {
  AttentionShape shape;
  shape.group = group;
  shape.wide_queries = wide_queries;
  shape.narrow_queries = std::min(group, 16u);
  return shape;
}

// Every query of every row is computed once, by all splits that it sees a token of and no other;
// partial results have a slot each and are merged from the first split to the last.
void expect_complete(const AttentionShape& shape, const std::vector<SequenceStep>& sequences,
                     const AttentionPlan& plan) {
  using Query = std::tuple<std::uint32_t, std::uint32_t>;  // sequence's first row, number
  std::map<Query, std::vector<std::uint32_t>> splits;
  std::map<std::uint32_t, SequenceStep> by_row;
  for (const SequenceStep& sequence : sequences) by_row[sequence.first_row] = sequence;
  std::map<std::uint32_t, AttentionTask> slots;
  for (const bool wide : {true, false}) {
    for (const AttentionTask& task : wide ? plan.wide : plan.narrow) {
      ASSERT_TRUE(by_row.contains(task.row));
      EXPECT_EQ(task.position, by_row[task.row].position);
      EXPECT_EQ(task.blocks, by_row[task.row].first_block);
      ASSERT_GE(task.queries, 1u);
      EXPECT_LE(task.queries, wide ? shape.wide_queries : shape.narrow_queries);
      for (std::uint32_t q = task.first; q < task.first + task.queries; ++q) {
        for (std::uint32_t s = 0; s < task.splits; ++s) {
          splits[{task.row, q}].push_back(task.first_split + s);
        }
      }
      if (task.partial == kNoPartial) continue;
      EXPECT_EQ(task.splits, 1u);
      EXPECT_TRUE(slots.emplace(task.partial, task).second) << "a slot for two";
      EXPECT_LT(task.partial, plan.partials);
    }
  }
  std::size_t merged = 0;
  for (const AttentionMerge& merge : plan.merges) {
    EXPECT_GT(merge.splits, 1u);
    for (std::uint32_t s = 0; s < merge.splits; ++s, ++merged) {
      ASSERT_TRUE(slots.contains(merge.partial + s));
      const AttentionTask& task = slots[merge.partial + s];
      EXPECT_EQ(std::tie(task.row, task.first, task.queries),
                std::tie(merge.row, merge.first, merge.queries));
      EXPECT_EQ(task.first_split, s);
    }
  }
  EXPECT_EQ(merged, slots.size());
  std::size_t queries = 0;
  for (const SequenceStep& sequence : sequences) {
    for (std::uint32_t q = 0; q < sequence.rows * shape.group; ++q, ++queries) {
      const std::vector<std::uint32_t>& seen = splits[{sequence.first_row, q}];
      const std::uint32_t needed = (sequence.position + q / shape.group) / kAttentionSplitTokens;
      // A tile's earlier rows may come along into a split of which they see nothing.
      ASSERT_GE(seen.size(), needed + 1);
      for (std::uint32_t s = 0; s < seen.size(); ++s) ASSERT_EQ(seen[s], s);
    }
  }
  EXPECT_EQ(splits.size(), queries);
}

TEST(AttentionPlanTest, ComputesEveryQueryOnceWithinTheLimits) {
  std::mt19937 random(1);
  const auto below = [&](std::uint32_t most) {
    return std::uniform_int_distribution<std::uint32_t>(0, most - 1)(random);
  };
  AttentionPlan plan;
  for (int round = 0; round < 300; ++round) {
    const AttentionShape shape = shape_of(1 + below(20), round % 2 == 0 ? 64 : 16);
    const std::uint32_t context = 1 + below(3000);
    std::vector<SequenceStep> sequences;
    std::uint32_t rows = 0;
    std::uint32_t blocks = 0;
    const std::uint32_t count = 1 + below(12);
    for (std::uint32_t i = 0; i < count; ++i) {
      SequenceStep sequence;
      sequence.first_row = rows;
      sequence.rows = below(2) == 0 ? 1 : 1 + below(std::min(context, 200u));
      sequence.position = below(context - sequence.rows + 1);
      sequence.first_block = blocks;
      sequence.blocks = (sequence.position + sequence.rows + 31) / 32;
      blocks += sequence.blocks;
      rows += sequence.rows;
      sequences.push_back(sequence);
    }
    const AttentionLimits limits =
        attention_limits(shape, rows, count, context, round % 3 == 0 ? 10 : 100000);
    plan_attention(shape, sequences, limits, plan);
    expect_complete(shape, sequences, plan);
    EXPECT_LE(plan.wide.size(), limits.wide);
    EXPECT_LE(plan.narrow.size(), limits.narrow);
    EXPECT_LE(plan.merges.size(), limits.merges);
    EXPECT_LE(plan.partials, limits.partials);
    if (HasFailure()) return;
  }
}

// By hand: 4 heads to a kv head, positions 255 (1 split) and 256 (2 splits).
TEST(AttentionPlanTest, RowsAloneAreSplit) {
  const AttentionShape shape = shape_of(4, 64);
  const AttentionLimits limits = attention_limits(shape, 2, 2, 1024, 100);
  SequenceStep first, second;
  first.rows = second.rows = 1;
  first.position = 255;
  second.first_row = 1;
  second.position = 256;
  second.first_block = 8;
  AttentionPlan plan;
  plan_attention(shape, std::vector{first, second}, limits, plan);
  EXPECT_TRUE(plan.wide.empty());
  ASSERT_EQ(plan.narrow.size(), 3u);
  EXPECT_EQ(plan.narrow[0].partial, kNoPartial);
  EXPECT_EQ(plan.narrow[2].first_split, 1u);
  EXPECT_EQ(plan.narrow[2].partial, 1u);
  ASSERT_EQ(plan.merges.size(), 1u);
  EXPECT_EQ(plan.merges[0].row, 1u);
  EXPECT_EQ(plan.merges[0].splits, 2u);
}

TEST(AttentionPlanTest, WithoutRoomForPartialResultsRowsAreWalkedWhole) {
  const AttentionShape shape = shape_of(4, 64);
  SequenceStep sequence;
  sequence.rows = 1;
  sequence.position = 700;
  AttentionPlan plan;
  plan_attention(shape, std::vector{sequence}, attention_limits(shape, 1, 1, 1024, 2), plan);
  EXPECT_TRUE(plan.narrow.empty());
  ASSERT_EQ(plan.wide.size(), 1u);
  EXPECT_EQ(plan.wide[0].splits, 3u);
  EXPECT_EQ(plan.wide[0].queries, 4u);
}

}  // namespace
}  // namespace penstock::model
