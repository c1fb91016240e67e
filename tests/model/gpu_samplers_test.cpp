#include "model/gpu_samplers.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using testing::HasSubstr;

Admission admission_of(std::uint32_t sequence, bool penalty, std::vector<std::int32_t> tokens,
                       std::uint32_t prompt_tokens) {
  Admission admission;
  admission.sequence = sequence;
  admission.record = 100 + sequence;
  admission.sampling.repetition_penalty = penalty ? 1.5f : 1.0f;
  admission.tokens = std::move(tokens);
  admission.prompt_tokens = prompt_tokens;
  return admission;
}

std::vector<PenaltyEntry> entries_of(std::span<const std::byte> table) {
  PenaltyTable header;
  std::memcpy(&header, table.data(), sizeof(header));
  EXPECT_EQ(table.size(), penalty_table_bytes(header.count));
  std::vector<PenaltyEntry> entries(header.count);
  if (header.count > 0) {
    std::memcpy(entries.data(), table.data() + sizeof(header), header.count * sizeof(PenaltyEntry));
  }
  return entries;
}

class GpuSamplersTest : public testing::Test {
 protected:
  // Two tables; what is uploaded is kept by table.
  GpuSamplersTest() : samplers_({&tables_[0], &tables_[1]}, 50, 8) {}

  void update(const StepPlan& plan) {
    samplers_.update(plan, [&](PenaltyTable* to, std::span<const std::byte> table) {
      uploaded_[to] = entries_of(table);
    });
  }
  std::string refusal(const StepPlan& plan) {
    try {
      update(plan);
      std::vector<SampleRow> rows;
      samplers_.rows(plan, rows);
    } catch (const ModelError& error) {
      return error.what();
    }
    return "accepted";
  }

  PenaltyTable tables_[2];
  GpuSamplers samplers_;
  std::map<PenaltyTable*, std::vector<PenaltyEntry>> uploaded_;
};

TEST(PenaltyTableTest, CountsWhatWasGeneratedOnce) {
  const auto bytes =
      make_penalty_table(admission_of(1, true, {7, 3, 7, 3, 9, 3, -1, 50}, 3), 50, 8);
  PenaltyTable header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  EXPECT_EQ(header.count, 3u);
  EXPECT_EQ(header.capacity, 8u);
  const auto entries = entries_of(bytes);
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].id, 3);
  EXPECT_EQ(entries[0].generated, 2u);
  EXPECT_EQ(entries[1].id, 7);
  EXPECT_EQ(entries[1].generated, 0u);
  EXPECT_EQ(entries[2].id, 9);
  EXPECT_EQ(entries[2].generated, 1u);
}

TEST(PenaltyTableTest, MoreTokensThanItHoldsAreRefused) {
  EXPECT_NO_THROW(make_penalty_table(admission_of(1, true, {1, 2, 1}, 3), 50, 2));
  EXPECT_THROW(make_penalty_table(admission_of(1, true, {1, 2, 3}, 3), 50, 2), ModelError);
}

TEST_F(GpuSamplersTest, RowsFollowThePlanAndCountUp) {
  StepPlan plan;
  plan.admitted = {admission_of(1, false, {5}, 1), admission_of(2, true, {5, 6, 7}, 1)};
  plan.sequences = {{2, 0, 1, 0, 0, 1, true}, {9, 1, 1, 0, 0, 1, false}, {1, 2, 1, 0, 0, 1, true}};
  update(plan);
  std::vector<SampleRow> rows;
  samplers_.rows(plan, rows);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].record, 102u);
  EXPECT_EQ(rows[0].position, 2u);
  EXPECT_NE(rows[0].penalties, nullptr);
  EXPECT_EQ(uploaded_.at(rows[0].penalties).size(), 3u);
  EXPECT_EQ(rows[1].record, 101u);
  EXPECT_EQ(rows[1].position, 0u);
  EXPECT_EQ(rows[1].penalties, nullptr);
  samplers_.rows(plan, rows);
  EXPECT_EQ(rows[0].position, 3u);
  EXPECT_EQ(rows[1].position, 1u);
}

TEST_F(GpuSamplersTest, TablesOfTheRetiredAreUsedAgain) {
  for (std::uint32_t i = 0; i < 10; ++i) {
    StepPlan plan;
    if (i >= 2) plan.retired = {i - 2};
    plan.admitted = {admission_of(i, true, {static_cast<std::int32_t>(i)}, 1)};
    plan.sequences = {{i, 0, 1, 0, 0, 1, true}};
    EXPECT_EQ(refusal(plan), "accepted");
  }
  StepPlan plan;
  plan.admitted = {admission_of(20, false, {}, 0)};
  EXPECT_EQ(refusal(plan), "accepted");  // needs no table
  plan.admitted = {admission_of(21, true, {}, 0)};
  EXPECT_THAT(refusal(plan), HasSubstr("more than 2 sequences with penalties"));
  samplers_.clear();
  EXPECT_EQ(refusal(plan), "accepted");
}

TEST_F(GpuSamplersTest, WhatCannotBeIsRefused) {
  StepPlan plan;
  plan.step = 12;
  plan.sequences = {{4, 0, 1, 0, 0, 1, true}};
  EXPECT_THAT(refusal(plan), HasSubstr("step 12: sequence 4 samples but was never admitted"));
  plan.admitted = {admission_of(4, false, {1}, 2)};
  EXPECT_THAT(refusal(plan), HasSubstr("is admitted with 1 tokens, 2 of them its prompt"));
  plan.admitted = {admission_of(4, false, {1}, 1)};
  EXPECT_EQ(refusal(plan), "accepted");
  EXPECT_THAT(refusal(plan), HasSubstr("sequence 4 is admitted twice"));
}

}  // namespace
}  // namespace penstock::model
