// A GPU stage's network and lists with kernels that are played on the CPU, compared to the CPU's
// stage. What is not played are streams, graphs and cuBLASLt.

#include "tests/model/played_stage.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/model/stage_support.hpp"

namespace penstock::model {
namespace {

StageOptions small_options(io::DType dtype, io::DType kv_dtype) {
  StageOptions options = options_of(dtype, kv_dtype, 1);
  options.max_samples = 6;
  options.max_rows = 80;
  return options;
}

ModelRunner played(int stages, const StageOptions& options) {
  return ModelRunner(checkpoint(), stages, options, 40, make_played_stage);
}

struct Kind {
  io::DType dtype;
  io::DType kv_dtype;
  float tolerance;  // of the largest logit
};

std::string name_of(const testing::TestParamInfo<Kind>& info) {
  return std::string(io::to_string(info.param.dtype)) + "_" +
         std::string(io::to_string(info.param.kv_dtype));
}

class PlayedStageTest : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, PlayedStageTest,
                         testing::Values(Kind{io::DType::f32, io::DType::f32, 1e-5f},
                                         Kind{io::DType::bf16, io::DType::bf16, 0.05f},
                                         Kind{io::DType::bf16, io::DType::f32, 0.05f}),
                         name_of);

// Prompts in chunks, then decode steps of one to five sequences, some of more than one split of
// attention, through one and two stages: the same bits for each sequence alone, and those of the
// CPU's stage within rounding.
TEST_P(PlayedStageTest, ComputesWhatTheCpuComputes) {
  const StageOptions options = small_options(GetParam().dtype, GetParam().kv_dtype);
  ModelRunner cpu(checkpoint(), 1, small_options(io::DType::f32, io::DType::f32), 40);
  const std::vector<std::size_t> prompts{1, 31, 70, 255, 33};
  constexpr std::size_t kDecoded = 7;
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<std::vector<float>> alone, want;
  {
    ModelRunner runner = played(1, options);
    for (const std::size_t prompt : prompts) {
      tokens.push_back(tokens_of(prompt + kDecoded, static_cast<std::uint32_t>(prompt)));
      alone.push_back(logits_after(runner, tokens.back(), 77));
      want.push_back(logits_after(cpu, tokens.back(), 77));
    }
  }
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    float largest = 0;
    for (const float value : want[i]) largest = std::max(largest, std::abs(value));
    ASSERT_EQ(alone[i].size(), want[i].size());
    for (std::size_t j = 0; j < want[i].size(); ++j) {
      ASSERT_NEAR(alone[i][j], want[i][j], largest * GetParam().tolerance)
          << "logit " << j << " of prompt " << prompts[i];
    }
  }

  ModelRunner runner = played(2, options);
  std::vector<std::uint32_t> sequences;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    sequences.push_back(runner.start(tokens[i]));
    for (std::size_t at = 0; at < prompts[i]; at += 40) {
      const std::size_t rows = std::min<std::size_t>(40, prompts[i] - at);
      runner.step({{sequences[i], std::span(tokens[i]).subspan(at, rows), false}});
    }
  }
  // One or two others sit out each time, so that graphs are replayed by steps of other sequences,
  // rows and lengths than they were made from.
  std::vector<std::size_t> decoded(prompts.size(), 0);
  std::size_t finished = 0;
  for (std::size_t step = 0; finished < prompts.size(); ++step) {
    std::vector<ModelRunner::Feed> feeds;
    std::vector<std::size_t> fed;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      const bool out = i == step % prompts.size() || i == step / prompts.size() % prompts.size();
      if (out || decoded[i] == kDecoded) continue;
      const std::size_t at = prompts[i] + decoded[i]++;
      feeds.push_back({sequences[i], std::span(tokens[i]).subspan(at, 1), true});
      fed.push_back(i);
    }
    if (feeds.empty()) continue;
    runner.step(feeds);
    for (std::size_t j = 0; j < fed.size(); ++j) {
      if (decoded[fed[j]] < kDecoded) continue;
      SCOPED_TRACE(testing::Message() << "prompt of " << prompts[fed[j]]);
      expect_same_bits(copy(runner.logits(j)), alone[fed[j]]);
      ++finished;
    }
  }
  EXPECT_GT(dynamic_cast<const PlayedStage&>(runner.last_stage()).replayed(), 3);
}

// Greedy ids, and those of all filters and penalties, are the CPU's.
TEST(PlayedStageSamples, ChooseTheIdsOfTheCpu) {
  const StageOptions options = small_options(io::DType::f32, io::DType::f32);
  SamplingParams penalties;
  penalties.temperature = 0.8f;
  penalties.top_k = 40;
  penalties.top_p = 0.9f;
  penalties.min_p = 0.01f;
  penalties.repetition_penalty = 1.3f;
  penalties.presence_penalty = 0.3f;
  penalties.frequency_penalty = 0.2f;
  penalties.seed = 11;
  const auto answers = [&](tests::MakeStage make) {
    ModelRunner runner(checkpoint(), 1, options, 40, make);
    std::vector<std::vector<std::int32_t>> all{tokens_of(20, 1), tokens_of(5, 2), tokens_of(9, 3)};
    const std::vector<SamplingParams> params{penalties, {}, penalties};
    std::vector<std::uint32_t> sequences;
    std::vector<std::size_t> fed(3, 0);
    for (std::size_t i = 0; i < 3; ++i) sequences.push_back(runner.start(all[i], params[i]));
    for (int step = 0; step < 12; ++step) {
      std::vector<ModelRunner::Feed> feeds;
      for (std::size_t i = 0; i < 3; ++i) {
        feeds.push_back({sequences[i], std::span(all[i]).subspan(fed[i]), true});
        fed[i] = all[i].size();
      }
      runner.step(feeds);
      for (std::size_t i = 0; i < 3; ++i) all[i].push_back(runner.sampled()[i]);
    }
    return all;
  };
  EXPECT_EQ(answers(make_played_stage), answers(make_cpu_stage));
}

}  // namespace
}  // namespace penstock::model
