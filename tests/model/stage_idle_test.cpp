#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/stage.hpp"

namespace penstock::model {
namespace {

using testing::ElementsAre;

TEST(IdleStage, HasAnIdForEachSequenceThatSamples) {
  const std::unique_ptr<Stage> stage = make_idle_stage(48);
  StepPlan plan;
  plan.tokens = {1, 2, 3};
  plan.sequences.resize(3);
  plan.sequences[0].sample = plan.sequences[2].sample = true;
  stage->begin_run();
  stage->forward(plan, {}, {}, [] {});
  EXPECT_TRUE(stage->ready());
  EXPECT_THAT(stage->sampled(), ElementsAre(0, 0));
  plan.sequences.resize(1);
  stage->forward(plan, {}, {}, [] {});
  EXPECT_THAT(stage->sampled(), ElementsAre(0));
}

TEST(IdleStage, HasRoomForItsRowsOnly) {
  const std::unique_ptr<Stage> stage = make_idle_stage(48);
  EXPECT_EQ(stage->activation_bytes(20), 960u);
  EXPECT_EQ(stage->make_activations(960)->bytes().size(), 960u);
  EXPECT_EQ(stage->make_activations(0)->bytes().size(), 1u);
  EXPECT_EQ(stage->compute_stream(), nullptr);
}

}  // namespace
}  // namespace penstock::model
