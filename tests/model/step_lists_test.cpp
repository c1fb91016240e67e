#include "model/step_lists.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using testing::ElementsAre;

template <class T>
std::vector<T> list(const std::vector<std::byte>& from, std::size_t place, std::size_t count) {
  std::vector<T> values(count);
  std::memcpy(values.data(), from.data() + place, count * sizeof(T));
  return values;
}

// Three tokens of a prompt that lies in blocks 9 and 4, from position 31 on, and a row that
// decodes.
StepPlan plan_of_two() {
  StepPlan plan;
  plan.tokens = {11, 12, 13, 14};
  plan.sequences = {{1, 0, 3, 31, 0, 2, true}, {2, 3, 1, 64, 2, 3, true}};
  plan.block_table = {9, 4, 1, 2, 3};
  return plan;
}

AttentionPlan attention_of_one() {
  AttentionPlan attention;
  attention.wide.resize(1);
  attention.wide[0].queries = 5;
  attention.narrow.resize(2);
  attention.narrow[1].position = 77;
  attention.merges.push_back({7, 0, 4, 2, 3});
  return attention;
}

TEST(StepLayoutTest, ListsFollowOneAnotherAndTheTableIsLast) {
  const StepLayout layout(StepRoom{4, 2, 1, 2, 1, 5});
  const std::vector<std::pair<std::size_t, std::size_t>> lists{
      {layout.counts, 12},
      {layout.sample_count, 4},
      {layout.tokens, 16},
      {layout.positions, 16},
      {layout.row_blocks, 16},
      {layout.sample_rows, 8},
      {layout.sampling, 2 * sizeof(SampleRow)},
      {layout.wide, 32},
      {layout.narrow, 64},
      {layout.merges, 20},
      {layout.table, 20}};
  std::size_t end = 0;
  for (const auto& [place, bytes] : lists) {
    EXPECT_GE(place, end);
    EXPECT_LT(place, end + 64);
    EXPECT_EQ(place % 64, 0u);
    end = place + bytes;
  }
  EXPECT_GE(layout.bytes, end);
  EXPECT_LT(layout.bytes, end + 64);
  // A graph is replayed with block tables of any length.
  const StepLayout longer(StepRoom{4, 2, 1, 2, 1, 5000});
  EXPECT_EQ(longer.table, layout.table);
  EXPECT_EQ(longer.merges, layout.merges);
}

TEST(StepLayoutTest, SizesThatDoNotFitAreRefused) {
  EXPECT_THROW(StepLayout(StepRoom{1, 1, 1, 1, 1, std::uint64_t{1} << 62}), ModelError);
}

TEST(WriteStepTest, WritesWhatKernelsRead) {
  const StepPlan plan = plan_of_two();
  const AttentionPlan attention = attention_of_one();
  std::vector<SampleRow> sampling(2);
  sampling[0].record = 70;
  sampling[1].record = 71;
  sampling[1].position = 6;
  const StepRoom room{4, 2, 1, 2, 1, 5};
  const StepLayout layout(room);
  std::vector<std::byte> bytes(layout.bytes);
  write_step(plan, attention, sampling, room, layout, 99, bytes);
  EXPECT_THAT(list<std::uint32_t>(bytes, layout.counts, 3), ElementsAre(1, 2, 1));
  EXPECT_THAT(list<std::uint32_t>(bytes, layout.sample_count, 1), ElementsAre(2));
  EXPECT_THAT(list<std::int32_t>(bytes, layout.tokens, 4), ElementsAre(11, 12, 13, 14));
  EXPECT_THAT(list<std::uint32_t>(bytes, layout.positions, 4), ElementsAre(31, 32, 33, 64));
  EXPECT_THAT(list<std::uint32_t>(bytes, layout.row_blocks, 4), ElementsAre(9, 4, 4, 3));
  EXPECT_THAT(list<std::int32_t>(bytes, layout.sample_rows, 2), ElementsAre(2, 3));
  EXPECT_THAT(list<std::uint32_t>(bytes, layout.table, 5), ElementsAre(9, 4, 1, 2, 3));
  EXPECT_EQ(list<SampleRow>(bytes, layout.sampling, 2)[1].record, 71u);
  EXPECT_EQ(list<SampleRow>(bytes, layout.sampling, 2)[1].position, 6u);
  EXPECT_EQ(list<AttentionTask>(bytes, layout.wide, 1)[0].queries, 5u);
  EXPECT_EQ(list<AttentionTask>(bytes, layout.narrow, 2)[1].position, 77u);
  EXPECT_EQ(list<AttentionMerge>(bytes, layout.merges, 1)[0].row, 7u);
}

// Rows that only fill up a graph read token 0, write to the scratch block and sample nothing.
TEST(WriteStepTest, FillsUpRows) {
  StepPlan plan;
  plan.tokens = {5, 6};
  plan.sequences = {{1, 0, 1, 40, 0, 2, true}, {2, 1, 1, 0, 2, 1, true}};
  plan.block_table = {3, 8, 6};
  const StepRoom room{4, 4, 0, 4, 0, 3};
  const StepLayout layout(room);
  std::vector<std::byte> bytes(layout.bytes, std::byte{0xff});
  write_step(plan, {}, std::vector<SampleRow>(2), room, layout, 99, bytes);
  EXPECT_THAT(list<std::uint32_t>(bytes, layout.counts, 3), ElementsAre(0, 0, 0));
  EXPECT_THAT(list<std::uint32_t>(bytes, layout.sample_count, 1), ElementsAre(2));
  EXPECT_THAT(list<std::int32_t>(bytes, layout.tokens, 4), ElementsAre(5, 6, 0, 0));
  EXPECT_THAT(list<std::uint32_t>(bytes, layout.row_blocks, 4), ElementsAre(8, 6, 99, 99));
  EXPECT_THAT(list<std::int32_t>(bytes, layout.sample_rows, 4), ElementsAre(0, 1, 0, 0));
  for (const std::uint32_t position : list<std::uint32_t>(bytes, layout.positions, 4)) {
    EXPECT_LE(position, 40u);
  }
}

// Stages that sample nothing get no samples, though the plan has some.
TEST(WriteStepTest, OnlyTheLastStageSamples) {
  const StepRoom room{4, 0, 1, 2, 1, 5};
  const StepLayout layout(room);
  std::vector<std::byte> bytes(layout.bytes);
  write_step(plan_of_two(), attention_of_one(), {}, room, layout, 99, bytes);
  EXPECT_THAT(list<std::uint32_t>(bytes, layout.sample_count, 1), ElementsAre(0));
}

TEST(WriteStepTest, WhatHasNoRoomIsRefused) {
  const StepRoom enough{4, 2, 1, 2, 1, 5};
  const auto write = [&](const StepRoom& room) {
    const StepLayout layout(room);
    std::vector<std::byte> bytes(layout.bytes);
    write_step(plan_of_two(), attention_of_one(), std::vector<SampleRow>(2), room, layout, 9,
               bytes);
  };
  EXPECT_NO_THROW(write(enough));
  for (auto change : {+[](StepRoom& r) { --r.rows; }, +[](StepRoom& r) { --r.samples; },
                      +[](StepRoom& r) { --r.wide; }, +[](StepRoom& r) { --r.narrow; },
                      +[](StepRoom& r) { --r.merges; }, +[](StepRoom& r) { --r.table; }}) {
    StepRoom room = enough;
    change(room);
    EXPECT_THROW(write(room), std::length_error);
  }
  std::vector<std::byte> small(StepLayout(enough).bytes - 1);
  EXPECT_THROW(write_step(plan_of_two(), attention_of_one(), std::vector<SampleRow>(2), enough,
                          StepLayout(enough), 9, small),
               std::length_error);
}

}  // namespace
}  // namespace penstock::model
