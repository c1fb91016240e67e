#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "model/error.hpp"
#include "model/stage.hpp"
#include "model/stage_plan.hpp"
#include "model/weights.hpp"
#include "tests/model/stage_support.hpp"
#include "tests/support/random_checkpoint.hpp"

namespace penstock::model {
namespace {

using testing::HasSubstr;

TEST(StageTest, Bf16IsCloseToF32) {
  const auto tokens = tokens_of(60, 6);
  ModelRunner exact(checkpoint(), 1, options_of(io::DType::f32, io::DType::f32, 2), 4);
  ModelRunner rounded(checkpoint(), 1, options_of(io::DType::bf16, io::DType::bf16, 2), 4);
  const auto want = logits_after(exact, tokens, 60);
  const auto got = logits_after(rounded, tokens, 60);
  float largest = 0;
  for (const float value : want) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], largest * 0.05f);
}

TEST(StageTest, ReadsItsOwnTensorsOnly) {
  const ModelConfig config = config_of_four_layers();
  const std::uint64_t before = checkpoint().bytes_read();
  std::uint64_t read = 0, stored = 0;
  for (const auto& tensor : checkpoint().tensors()) stored += tensor.size_bytes;
  for (const StageRange& range : cut_stages(config, 3, io::DType::bf16)) {
    std::uint64_t done = 0, total = 0;
    const auto stage =
        make_cpu_stage(checkpoint(), config, range, options_of(io::DType::bf16, io::DType::bf16, 1),
                       [&](std::uint64_t d, std::uint64_t t) {
                         EXPECT_GT(d, done);
                         std::tie(done, total) = std::pair(d, t);
                       });
    EXPECT_EQ(done, total);
    EXPECT_GE(stage->weight_bytes(), total);
    read += total;
  }
  EXPECT_EQ(read, stored);
  EXPECT_EQ(checkpoint().bytes_read() - before, stored);
}

TEST(StageTest, TellsSizesAndClass) {
  const ModelConfig config = config_of_four_layers();
  const auto stage = make_cpu_stage(checkpoint(), config, {1, 3, false, false},
                                    options_of(io::DType::bf16, io::DType::f32, 1), {});
  EXPECT_EQ(stage->activation_row_bytes(), 96u * 2);
  // 2 layers, 2 heads, 32 tokens; keys of 24 numbers and values padded to 32, in f32.
  EXPECT_EQ(stage->kv_block_bytes(), 2u * 2 * 32 * (24 + 32) * 4);
  EXPECT_THAT(stage->numeric_class(), testing::StartsWith("cpu "));
  for (const char* part : {"onednn-", "kernels-", "highway-", "libc-"}) {
    EXPECT_THAT(stage->numeric_class(), HasSubstr(part));
  }
}

// --- What is refused -----------------------------------------------------------------------------

class StageRefusals : public testing::Test {
 protected:
  StageRefusals() {
    stage_ = make_cpu_stage(checkpoint(), config_of_four_layers(), {0, 4, true, true},
                            options_of(io::DType::f32, io::DType::f32, 1), {});
    stage_->allocate_kv(4);
    Admission admission;
    admission.sequence = 7;
    admission.tokens = {1, 2, 3};
    admission.prompt_tokens = 3;
    plan_.step = 12;
    plan_.admitted = {admission};
    plan_.tokens = {1, 2, 3};
    plan_.sequences = {{7, 0, 3, 0, 0, 1, true}};
    plan_.block_table = {2};
  }

  std::string refusal(const StepPlan& plan) {
    try {
      stage_->forward(plan, {}, {}, [] {});
    } catch (const ModelError& error) {
      return error.what();
    }
    return "accepted";
  }

  std::unique_ptr<Stage> stage_;
  StepPlan plan_;
};

TEST_F(StageRefusals, TheGoodPlanIsAccepted) {
  EXPECT_EQ(refusal(plan_), "accepted");
  EXPECT_EQ(stage_->sampled().size(), 1u);
  EXPECT_EQ(stage_->logits().size(), 203u);
  plan_.admitted.clear();
  plan_.retired = {7};
  plan_.tokens.clear();
  plan_.sequences.clear();
  EXPECT_EQ(refusal(plan_), "accepted");  // nothing to compute
  EXPECT_TRUE(stage_->sampled().empty());
}

TEST_F(StageRefusals, NameTheStepAndTheReason) {
  const auto broken = [&](auto&& change) {
    StepPlan plan = plan_;
    change(plan);
    return refusal(plan);
  };
  EXPECT_THAT(broken([](StepPlan& p) { p.tokens[1] = 203; }), HasSubstr("token id 203"));
  EXPECT_THAT(broken([](StepPlan& p) { p.tokens[1] = -1; }), HasSubstr("token id -1"));
  EXPECT_THAT(broken([](StepPlan& p) { p.tokens.resize(301); }), HasSubstr("301 rows"));
  EXPECT_THAT(broken([](StepPlan& p) { p.tokens.push_back(1); }), HasSubstr("3 rows"));
  EXPECT_THAT(broken([](StepPlan& p) { p.sequences[0].first_row = 1; }), HasSubstr("row 1"));
  EXPECT_THAT(broken([](StepPlan& p) { p.sequences[0].rows = 0; }), HasSubstr("no rows"));
  EXPECT_THAT(broken([](StepPlan& p) { p.block_table[0] = 4; }), HasSubstr("KV block 4"));
  EXPECT_THAT(broken([](StepPlan& p) { p.sequences[0].blocks = 2; }), HasSubstr("KV blocks"));
  EXPECT_THAT(broken([](StepPlan& p) { p.sequences[0].first_block = 1; }), HasSubstr("KV blocks"));
  EXPECT_THAT(broken([](StepPlan& p) { p.sequences[0].first_block = 0xFFFFFFFF; }),
              HasSubstr("KV blocks"));
  EXPECT_THAT(broken([](StepPlan& p) { p.sequences[0].position = 510; }),
              HasSubstr("position 512"));
  EXPECT_THAT(broken([](StepPlan& p) { p.sequences[0].position = 0xFFFFFFFE; }),
              HasSubstr("context has 512"));
  EXPECT_THAT(broken([](StepPlan& p) {
                p.tokens.push_back(1);
                p.sequences.push_back({7, 3, 1, 0, 0, 1, false});
              }),
              HasSubstr("sequence 7 appears twice"));
  EXPECT_THAT(broken([](StepPlan& p) { p.admitted.clear(); }), HasSubstr("never admitted"));
  EXPECT_THAT(broken([](StepPlan& p) { p.admitted.push_back(p.admitted[0]); }),
              HasSubstr("admitted twice"));
  EXPECT_THAT(broken([](StepPlan& p) { p.tokens[0] = 999; }), HasSubstr("step 12"));
}

TEST_F(StageRefusals, ActivationsMustFitTheRows) {
  std::vector<std::byte> bytes(96 * 4 * 3);
  EXPECT_THROW(stage_->forward(plan_, bytes, {}, [] {}), ModelError);
  EXPECT_THROW(stage_->forward(plan_, {}, bytes, [] {}), ModelError);
}

TEST_F(StageRefusals, TooManySamples) {
  StageOptions options = options_of(io::DType::f32, io::DType::f32, 1);
  options.max_samples = 1;
  stage_ = make_cpu_stage(checkpoint(), config_of_four_layers(), {0, 4, true, true}, options, {});
  stage_->allocate_kv(4);
  plan_.tokens.push_back(1);
  plan_.block_table.push_back(1);
  plan_.sequences.push_back({8, 3, 1, 0, 1, 1, true});
  EXPECT_THAT(refusal(plan_), HasSubstr("2 rows to sample"));
}

// Of all weights in bf16, before they are packed.
std::uint64_t plain_bytes(const ModelConfig& config) {
  std::uint64_t bytes = 0;
  for (const WeightSpec& spec : weight_specs(config)) {
    std::uint64_t elements = 1;
    for (const std::uint64_t extent : spec.shape) elements *= extent;
    bytes += elements * (spec.is_matrix ? 2 : 4);
  }
  return bytes;
}

// The memory that a stage may take is that of its weights, activations and logits together.
TEST(StageTest, MoreThanItsMemoryIsRefusedWithTheParts) {
  ModelConfig config = config_of_four_layers();
  config.vocab_size = 20000;
  const tests::RandomCheckpoint file(config, io::DType::bf16, "stage_memory");
  const io::CheckpointReader reader(file.path());
  StageOptions options = options_of(io::DType::bf16, io::DType::bf16, 1);
  options.max_rows = 512;
  options.max_samples = 512;
  const auto make = [&](const StageRange& range, std::uint64_t memory_bytes) {
    options.memory_bytes = memory_bytes;
    return make_cpu_stage(reader, config, range, options, {})->weight_bytes();
  };
  const StageRange whole{0, 4, true, true};
  const StageRange first{0, 3, true, false};
  const std::uint64_t weights = make(whole, 0);
  const std::uint64_t first_weights = make(first, 0);
  const std::uint64_t logits = std::uint64_t{20000} * 4 * 512;
  // 512 rows of activations are more than 1 MB and less than 8.
  EXPECT_EQ(make(whole, weights + logits + (8u << 20)), weights);
  EXPECT_EQ(make(first, first_weights + (8u << 20)), first_weights);
  EXPECT_THAT([&] { make(first, first_weights + (1u << 20)); },
              testing::ThrowsMessage<ModelError>(HasSubstr("activations for 512 rows")));
  EXPECT_THAT([&] { make(whole, weights + logits); },
              testing::ThrowsMessage<ModelError>(testing::AllOf(
                  HasSubstr(file.path()),
                  HasSubstr(fmt::format("{} bytes of weights", plain_bytes(config))),
                  HasSubstr(fmt::format("the {} bytes of memory that are this stage's share",
                                        weights + logits)))));
  EXPECT_THAT([&] { make(whole, weights + (8u << 20)); },
              testing::ThrowsMessage<ModelError>(HasSubstr("logits for 512 samples")));
}

// While the head is packed, it is there twice; while it is converted, it is there as it is stored.
TEST(StageTest, MemoryForPackingIsCounted) {
  ModelConfig config = config_of_four_layers();
  config.vocab_size = 20000;
  const std::uint64_t head = std::uint64_t{20000} * static_cast<std::uint64_t>(config.hidden_size);
  for (const auto& [stored, packing] :
       {std::pair{io::DType::bf16, head * 2}, {io::DType::f32, head * 4}}) {
    const tests::RandomCheckpoint file(config, stored, "stage_packing");
    const io::CheckpointReader reader(file.path());
    StageOptions options = options_of(io::DType::bf16, io::DType::bf16, 1);
    options.max_rows = 1;
    const auto make = [&](std::uint64_t memory_bytes) {
      options.memory_bytes = memory_bytes;
      return make_cpu_stage(reader, config, {0, 4, true, true}, options, {})->weight_bytes();
    };
    const std::uint64_t weights = plain_bytes(config);
    EXPECT_GE(make(weights + packing), weights);
    const std::string bytes = fmt::format("or {} bytes while weights are packed", packing);
    EXPECT_THAT([&] { make(weights + packing - 1); },
                testing::ThrowsMessage<ModelError>(HasSubstr(bytes)));
  }
}

// Sizes at the limits of a config and of a step must not wrap around to something that fits.
TEST(StageTest, AbsurdStepsAreRefused) {
  StageOptions options = options_of(io::DType::f32, io::DType::f32, 1);
  options.max_rows = std::numeric_limits<std::uint32_t>::max();
  options.max_samples = options.max_rows;
  EXPECT_THAT(
      [&] {
        make_cpu_stage(checkpoint(), config_of_four_layers(), {0, 4, true, true}, options, {});
      },
      testing::ThrowsMessage<ModelError>(
          testing::AllOf(HasSubstr("for 4294967295 rows"), HasSubstr("for 4294967295 samples"))));
}

TEST(StageTest, ConfigThatIsNotTheFilesIsRefusedWithTheTensor) {
  ModelConfig config = config_of_four_layers();
  config.intermediate_size = 201;
  const auto make = [&] {
    make_cpu_stage(checkpoint(), config, {0, 4, true, true},
                   options_of(io::DType::f32, io::DType::f32, 1), {});
  };
  EXPECT_THAT(make, testing::ThrowsMessage<ModelError>(HasSubstr("/layers/0000/mlp/gate")));
  config = config_of_four_layers();
  config.mlp_bias = true;
  EXPECT_THAT(make, testing::ThrowsMessage<ModelError>(HasSubstr("mlp/gate_bias is missing")));
}

}  // namespace
}  // namespace penstock::model
