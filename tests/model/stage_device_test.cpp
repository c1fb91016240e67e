#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <thread>

#include "comm/device/gpu.hpp"
#include "model/error.hpp"
#include "model/stage.hpp"
#include "tests/model/stage_support.hpp"

namespace penstock::model {
namespace {

std::unique_ptr<Stage> make_gpu_stage(const StageRange& range, const StageOptions& options) {
  return make_cuda_stage(checkpoint(), config_of_four_layers(), range, options, {});
}

// What the host can say without a GPU: why there is none.
TEST(StageDevice, WithoutAGpuItSaysWhy) {
  const auto survey = comm::device::survey_gpus();
  if (!survey.gpus.empty()) GTEST_SKIP() << "there is a GPU";
  std::string why;
  try {
    make_gpu_stage({0, 4, true, true}, options_of(io::DType::bf16, io::DType::bf16, 1));
  } catch (const std::exception& error) {
    why = error.what();
  }
  EXPECT_THAT(why, testing::HasSubstr(comm::device::runtime_version() == 0
                                          ? "this penstock was built without CUDA"
                                          : survey.none));
}

TEST(StageDevice, TheCpuIsAlwaysReady) {
  const auto stage = make_cpu_stage(checkpoint(), config_of_four_layers(), {0, 4, true, true},
                                    options_of(io::DType::f32, io::DType::f32, 1), {});
  EXPECT_TRUE(stage->ready());
  EXPECT_EQ(stage->compute_stream(), nullptr);
  EXPECT_GT(stage->kv_memory_bytes(), 0u);
  EXPECT_GT(stage->load_report().seconds, 0.0);
  std::uint64_t stored = 0;
  for (const auto& tensor : checkpoint().tensors()) stored += tensor.size_bytes;
  EXPECT_EQ(stage->load_report().bytes_read, stored);
  for (const std::size_t bytes : {1u, 255u, 4097u}) {
    const auto activations = stage->make_activations(bytes);
    EXPECT_EQ(activations->bytes().size(), bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(activations->bytes().data()) % 256, 0u);
    std::ranges::fill(activations->bytes(), std::byte{1});
  }
}

class GpuStage : public testing::Test {
 protected:
  void SetUp() override {
    const auto survey = comm::device::survey_gpus();
    if (survey.gpus.empty()) GTEST_SKIP() << survey.none;
  }
};

TEST_F(GpuStage, TellsSizesAndClass) {
  const auto stage =
      make_gpu_stage({1, 3, false, false}, options_of(io::DType::bf16, io::DType::f32, 2));
  EXPECT_EQ(stage->activation_row_bytes(), 96u * 2);
  // 2 layers, 2 heads, 32 tokens; keys and values of 24 numbers in f32.
  EXPECT_EQ(stage->kv_block_bytes(), 2u * 2 * 32 * (24 + 24) * 4);
  EXPECT_NE(stage->compute_stream(), nullptr);
  EXPECT_TRUE(stage->ready());
  EXPECT_GT(stage->load_report().bytes_read, 0u);
  EXPECT_GT(stage->load_report().seconds, 0.0);
  for (const char* part : {"cuda sm_", "cublaslt-", "-multiprocessors", " cuda-"}) {
    EXPECT_THAT(stage->numeric_class(), testing::HasSubstr(part));
  }
  const auto activations = stage->make_activations(100);
  EXPECT_EQ(activations->bytes().size(), 100u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(activations->bytes().data()) % 256, 0u);
}

// Blocks for all the memory that it says there is can be had, and then still be computed with.
TEST_F(GpuStage, MemoryForBlocksIsThere) {
  const auto stage =
      make_gpu_stage({0, 4, true, true}, options_of(io::DType::bf16, io::DType::bf16, 2));
  const std::uint64_t blocks = stage->kv_memory_bytes() / stage->kv_block_bytes();
  ASSERT_GT(blocks, 0u);
  stage->allocate_kv(static_cast<std::uint32_t>(blocks));
  Admission admission;
  admission.sequence = 7;
  admission.tokens = {1, 2, 3};
  admission.prompt_tokens = 3;
  StepPlan plan;
  plan.admitted = {admission};
  plan.tokens = {1, 2, 3};
  plan.sequences = {{7, 0, 3, 0, 0, 1, true}};
  plan.block_table = {static_cast<std::uint32_t>(blocks - 1)};
  stage->forward(plan, {}, {}, [] {});
  while (!stage->ready()) std::this_thread::yield();
  ASSERT_EQ(stage->sampled().size(), 1u);
  const auto logits = stage->logits();
  EXPECT_EQ(stage->sampled()[0], std::ranges::max_element(logits) - logits.begin());
}

TEST_F(GpuStage, MoreThanItsMemoryIsRefusedWithTheParts) {
  StageOptions options = options_of(io::DType::bf16, io::DType::bf16, 1);
  options.memory_bytes = 1u << 20;
  EXPECT_THAT(
      [&] {
        make_gpu_stage({0, 4, true, true}, options);
      },
      testing::ThrowsMessage<ModelError>(testing::AllOf(testing::HasSubstr("layers 0 to 3"),
                                                        testing::HasSubstr("this stage's share"))));
}

// Steps may be put on the stream one behind the other; their lists do not overwrite one another.
TEST_F(GpuStage, StepsMayBeQueued) {
  StageOptions options = options_of(io::DType::bf16, io::DType::bf16, 1);
  options.slots = 2;
  const auto tokens = tokens_of(200, 3);
  const auto last_id = [&](bool wait) {
    const auto stage = make_gpu_stage({0, 4, true, true}, options);
    stage->allocate_kv(10);
    Admission admission;
    admission.tokens = tokens;
    admission.prompt_tokens = 200;
    for (std::uint32_t at = 0; at < 200; at += 5) {
      StepPlan plan;
      plan.step = at;
      if (at == 0) plan.admitted = {admission};
      plan.tokens.assign(tokens.begin() + at, tokens.begin() + at + 5);
      const std::uint32_t blocks = (at + 5 + kKvBlockTokens - 1) / kKvBlockTokens;
      plan.sequences = {{0, 0, 5, at, 0, blocks, at == 195}};
      for (std::uint32_t i = 0; i < blocks; ++i) plan.block_table.push_back(9 - i);
      stage->forward(plan, {}, {}, [] {});
      while (wait && !stage->ready()) std::this_thread::yield();
    }
    while (!stage->ready()) std::this_thread::yield();
    return copy(stage->logits());
  };
  expect_same_bits(last_id(false), last_id(true));
}

}  // namespace
}  // namespace penstock::model
