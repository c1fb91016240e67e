// The idle stage on a GPU, whose runtime is asked what a Stage does not tell.

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "comm/device/gpu.hpp"
#include "model/stage.hpp"

namespace penstock::model {
namespace {

void expect_device_memory(const ActivationBuffer& buffer) {
  cudaPointerAttributes attributes{};
  EXPECT_EQ(cudaPointerGetAttributes(&attributes, buffer.bytes().data()), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
}

// A function of the host on its stream stands for a message that is still to arrive.
TEST(IdleCudaStage, IsReadyWhenWhatItsStreamWaitsForIsThere) {
  const comm::device::GpuSurvey survey = comm::device::survey_gpus();
  if (survey.gpus.empty()) GTEST_SKIP() << survey.none;
  comm::device::use_gpu(survey.gpus.front());
  const std::unique_ptr<Stage> stage = make_idle_cuda_stage(48);
  ASSERT_NE(stage->compute_stream(), nullptr);
  EXPECT_TRUE(stage->ready());
  const auto in = stage->make_activations(stage->activation_bytes(20));
  const auto out = stage->make_activations(stage->activation_bytes(20));
  EXPECT_EQ(in->bytes().size(), 960u);
  expect_device_memory(*in);
  expect_device_memory(*out);

  StepPlan plan;
  plan.tokens = {1, 2, 3};
  plan.sequences.resize(3);
  plan.sequences[0].sample = plan.sequences[2].sample = true;
  std::atomic<bool> arrived{false};
  const auto wait = [](void* flag) {
    while (!static_cast<std::atomic<bool>*>(flag)->load()) std::this_thread::yield();
  };
  EXPECT_EQ(cudaLaunchHostFunc(static_cast<cudaStream_t>(stage->compute_stream()), wait, &arrived),
            cudaSuccess);
  stage->begin_run();
  stage->forward(plan, in->bytes().first(144), out->bytes().first(144), [] {});
  EXPECT_FALSE(stage->ready());
  arrived = true;
  while (!stage->ready()) std::this_thread::yield();
  EXPECT_THAT(stage->sampled(), testing::ElementsAre(0, 0));
}

}  // namespace
}  // namespace penstock::model
