#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>

#include "jobs/calibrate.hpp"
#include "model/decode_graph.hpp"
#include "model/ops/product_cpu.hpp"

namespace penstock::jobs {
namespace {

std::vector<std::uint32_t> decoding(std::uint32_t most) {
  std::vector<std::uint32_t> sequences;
  for (const CalibrationStep& step : calibration_steps(512, most, 1024)) {
    if (step.rows == 1 && step.position < 500 && !step.drawn) sequences.push_back(step.sequences);
  }
  return sequences;
}

TEST(CalibrationSteps, BothEndsOfEachLotOfRowsThatDevicesCompute) {
  const std::vector<std::uint32_t> sequences = decoding(256);
  EXPECT_TRUE(std::adjacent_find(sequences.begin(), sequences.end(), std::greater_equal<>()) ==
              sequences.end());
  for (std::uint32_t rows = 1; rows < 256; ++rows) {
    const bool cpu = model::row_bucket(rows) != model::row_bucket(rows + 1);
    const bool gpu = model::graph_rows(rows) != model::graph_rows(rows + 1);
    if (!cpu && !gpu) continue;
    EXPECT_THAT(sequences, testing::Contains(rows));
    EXPECT_THAT(sequences, testing::Contains(rows + 1));
  }
  EXPECT_EQ(sequences.back(), 256u);
  EXPECT_LE(sequences.size(), 50u) << "each takes a quarter of a second and more";
}

TEST(CalibrationSteps, EndWithTheMostThatThereMayBe) {
  EXPECT_THAT(decoding(1), testing::ElementsAre(1));
  EXPECT_THAT(decoding(7), testing::ElementsAre(1, 2, 3, 4, 5, 6, 7));
  EXPECT_THAT(decoding(9), testing::ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9));
  for (std::uint32_t most = 1; most <= 256; ++most) {
    const std::vector<std::uint32_t> sequences = decoding(most);
    ASSERT_EQ(sequences.back(), most);
    ASSERT_TRUE(std::adjacent_find(sequences.begin(), sequences.end(), std::greater_equal<>()) ==
                sequences.end())
        << most;
  }
}

// Two sequences for each place in the cache, one of which draws.
TEST(CalibrationPlans, DrawnStepsAreOfSequencesThatDraw) {
  const std::vector<CalibrationStep> steps = calibration_steps(512, 32, 1024);
  std::vector<std::uint32_t> drawn;
  for (const CalibrationStep& step : steps) {
    if (step.drawn) drawn.push_back(step.sequences);
  }
  EXPECT_THAT(drawn, testing::ElementsAre(1, 8, 32));

  CalibrationPlans plans(steps);
  std::map<std::uint32_t, float> temperatures;
  for (const model::StepPlan& plan : plans.fill(512, 1000)) {
    for (const model::Admission& admission : plan.admitted) {
      EXPECT_TRUE(temperatures.emplace(admission.sequence, admission.sampling.temperature).second);
    }
  }
  EXPECT_EQ(temperatures.size(), 64u);
  const model::StepPlan greedy = plans.plan({8, 1, 31, true, false}, 1000);
  const model::StepPlan random = plans.plan({8, 1, 31, true, true}, 1000);
  EXPECT_EQ(greedy.block_table, random.block_table);
  EXPECT_EQ(greedy.tokens, random.tokens);
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(temperatures.at(greedy.sequences[i].sequence), 0.0f);
    EXPECT_GT(temperatures.at(random.sequences[i].sequence), 0.0f);
  }
}

}  // namespace
}  // namespace penstock::jobs
