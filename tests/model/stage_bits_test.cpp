// Bits of a stage do not depend on batch, chunk, number of stages, or on what was evicted before:
// the same tests on the CPU and on a GPU. GPUs are also compared to the CPU.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/device/gpu.hpp"
#include "model/stage.hpp"
#include "tests/model/stage_support.hpp"

namespace penstock::model {
namespace {

// A device, and the dtypes of activations and cache.
struct Kind {
  bool gpu;
  io::DType dtype;
  io::DType kv_dtype;
};

std::string name_of(const testing::TestParamInfo<Kind>& info) {
  return fmt::format("{}_{}_{}", info.param.gpu ? "gpu" : "cpu", io::to_string(info.param.dtype),
                     io::to_string(info.param.kv_dtype));
}

class StageBits : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (!GetParam().gpu) return;
    const auto survey = comm::device::survey_gpus();
    if (survey.gpus.empty()) GTEST_SKIP() << survey.none;
  }
  static StageOptions options(int threads = 1) {
    return options_of(GetParam().dtype, GetParam().kv_dtype, threads);
  }
  static ModelRunner runner_of(int stages, const StageOptions& options, std::uint32_t kv_blocks) {
    return ModelRunner(checkpoint(), stages, options, kv_blocks,
                       GetParam().gpu ? make_cuda_stage : make_cpu_stage);
  }
};
INSTANTIATE_TEST_SUITE_P(Kinds, StageBits,
                         testing::Values(Kind{false, io::DType::f32, io::DType::f32},
                                         Kind{false, io::DType::bf16, io::DType::bf16},
                                         Kind{false, io::DType::bf16, io::DType::f32},
                                         Kind{false, io::DType::f32, io::DType::bf16},
                                         Kind{true, io::DType::f32, io::DType::f32},
                                         Kind{true, io::DType::bf16, io::DType::bf16},
                                         Kind{true, io::DType::f16, io::DType::f16},
                                         Kind{true, io::DType::bf16, io::DType::f32}),
                         name_of);

TEST_P(StageBits, DoNotDependOnChunksStagesOrThreads) {
  const auto tokens = tokens_of(150, 1);
  ModelRunner whole = runner_of(1, options(), 20);
  const auto want = logits_after(whole, tokens, tokens.size());
  for (const auto& [stages, threads] :
       {std::pair(1, 1), std::pair(1, 2), std::pair(2, 2), std::pair(3, 1), std::pair(4, 2)}) {
    ModelRunner runner = runner_of(stages, options(threads), 11);
    for (const std::size_t chunk : {1u, 7u, 32u, 33u, 150u}) {
      SCOPED_TRACE(testing::Message()
                   << stages << " stages, " << threads << " threads, chunks " << chunk);
      expect_same_bits(logits_after(runner, tokens, chunk), want);
    }
  }
}

TEST_P(StageBits, DoNotDependOnBatchMates) {
  ModelRunner runner = runner_of(2, options(2), 60);
  std::vector<std::vector<std::int32_t>> prompts;
  std::vector<std::vector<float>> alone;
  for (const std::size_t length : {1u, 31u, 32u, 33u, 64u, 70u}) {
    prompts.push_back(tokens_of(length, static_cast<std::uint32_t>(length)));
    alone.push_back(logits_after(runner, prompts.back(), length));
  }
  std::vector<ModelRunner::Feed> feeds;
  for (const auto& prompt : prompts) feeds.push_back({runner.start(prompt), prompt, true});
  runner.step(feeds);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "prompt of " << prompts[i].size());
    expect_same_bits(copy(runner.logits(i)), alone[i]);
  }
}

// Decode mixed with another sequence's prefill in the same steps.
TEST_P(StageBits, DecodeIsPrefillAgain) {
  ModelRunner runner = runner_of(1, options(2), 40);
  const auto prompt = tokens_of(45, 3);
  const auto other = tokens_of(200, 4);
  auto all = prompt;
  const std::uint32_t sequence = runner.start(prompt);
  const std::uint32_t mate = runner.start(other);
  runner.step({{sequence, prompt, true}});
  std::vector<std::vector<float>> decoded;
  for (std::size_t i = 0; i < 25; ++i) {
    all.push_back(runner.sampled()[0]);
    runner.step({{mate, std::span(other).subspan(i * 8, 8), false},
                 {sequence, std::span(all).last(1), true}});
    decoded.push_back(copy(runner.logits(0)));
  }
  // An eviction throws the cache away; prompt and answer are prefilled again.
  runner.retire(sequence);
  for (const std::size_t chunk : {std::size_t{16}, all.size()}) {
    expect_same_bits(logits_after(runner, all, chunk), decoded.back());
  }
  const std::vector<std::int32_t> shorter(all.begin(), all.end() - 7);
  expect_same_bits(logits_after(runner, shorter, shorter.size()), decoded[decoded.size() - 8]);
}

// Two stages of one process, each in a thread of its own, at the same time.
TEST_P(StageBits, StagesInThreadsDoNotDisturbEachOther) {
  const auto tokens = tokens_of(100, 5);
  ModelRunner one = runner_of(1, options(), 10);
  const auto want = logits_after(one, tokens, 32);
  std::vector<std::vector<float>> got(2);
  std::vector<std::thread> threads;
  for (auto& logits : got) {
    threads.emplace_back([&] {
      ModelRunner runner = runner_of(1, options(2), 10);
      for (int i = 0; i < 3; ++i) logits = logits_after(runner, tokens, 32);
    });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& logits : got) expect_same_bits(logits, want);
}

// Decode steps of all numbers of rows, in rising and falling order: each graph is made, used again
// and left for another, and a context crosses from one split of attention to the next.
TEST_P(StageBits, DecodeDoesNotDependOnTheNumberOfRows) {
  StageOptions wide = options();
  wide.max_samples = 40;
  const auto tokens = tokens_of(300, 7);
  constexpr std::size_t kPrompt = 250;
  std::vector<std::vector<float>> alone;
  {
    ModelRunner runner = runner_of(1, wide, 20);
    const std::uint32_t sequence = runner.start({tokens.begin(), tokens.begin() + kPrompt});
    runner.step({{sequence, std::span(tokens).first(kPrompt), true}});
    for (std::size_t i = kPrompt; i < 290; ++i) {
      runner.step({{sequence, std::span(tokens).subspan(i, 1), true}});
      alone.push_back(copy(runner.logits(0)));
    }
  }
  ModelRunner runner = runner_of(2, wide, 200);
  const std::uint32_t sequence = runner.start({tokens.begin(), tokens.begin() + kPrompt});
  runner.step({{sequence, std::span(tokens).first(kPrompt), true}});
  std::vector<std::uint32_t> mates;
  for (std::size_t i = 0; i < 36; ++i) {
    mates.push_back(runner.start(tokens_of(1, static_cast<std::uint32_t>(i))));
  }
  const auto noise = tokens_of(64, 8);
  for (std::size_t i = 0; i < 40; ++i) {
    const std::size_t rows = i < 20 ? 2 * i : 2 * (39 - i);
    std::vector<ModelRunner::Feed> feeds;
    for (std::size_t mate = 0; mate < std::min<std::size_t>(rows, 36); ++mate) {
      feeds.push_back({mates[mate], std::span(noise).subspan(i, 1), true});
    }
    const std::size_t at = feeds.size() / 2;
    feeds.insert(feeds.begin() + static_cast<std::ptrdiff_t>(at),
                 {sequence, std::span(tokens).subspan(kPrompt + i, 1), true});
    runner.step(feeds);
    SCOPED_TRACE(testing::Message() << "token " << i << " among " << feeds.size());
    expect_same_bits(copy(runner.logits(at)), alone[i]);
  }
}

// Answers with all of the sampler at work are the same alone and in a batch, and greedy ones are
// the largest logits.
TEST_P(StageBits, SampledIdsDoNotDependOnTheBatch) {
  SamplingParams greedy;
  SamplingParams penalties;
  penalties.temperature = 0.8f;
  penalties.top_k = 40;
  penalties.top_p = 0.9f;
  penalties.repetition_penalty = 1.2f;
  penalties.presence_penalty = 0.3f;
  penalties.frequency_penalty = 0.2f;
  penalties.seed = 11;
  const std::vector<SamplingParams> params{greedy, penalties, greedy, penalties};
  constexpr std::size_t kSteps = 20;

  // Records are the handles, so the sequences have the same ones in both runs.
  const auto answers = [&](bool together) {
    ModelRunner runner = runner_of(1, options(), 40);
    std::vector<std::vector<std::int32_t>> all;
    std::vector<std::uint32_t> sequences;
    for (std::size_t i = 0; i < params.size(); ++i) {
      all.push_back(tokens_of(10 + 20 * i, static_cast<std::uint32_t>(i)));
      sequences.push_back(runner.start(all.back(), params[i]));
    }
    std::vector<std::size_t> fed(params.size(), 0);
    for (std::size_t first = 0; first < params.size(); first += together ? params.size() : 1) {
      const std::size_t end = together ? params.size() : first + 1;
      for (std::size_t step = 0; step < kSteps; ++step) {
        std::vector<ModelRunner::Feed> feeds;
        for (std::size_t i = first; i < end; ++i) {
          feeds.push_back({sequences[i], std::span(all[i]).subspan(fed[i]), true});
          fed[i] = all[i].size();
        }
        runner.step(feeds);
        for (std::size_t i = first; i < end; ++i) {
          const std::int32_t id = runner.sampled()[i - first];
          if (!params[i].has_penalty()) {
            const auto logits = runner.logits(i - first);
            EXPECT_EQ(id, std::ranges::max_element(logits) - logits.begin());
          }
          all[i].push_back(id);
        }
      }
    }
    return all;
  };
  EXPECT_EQ(answers(true), answers(false));
}

// A GPU's logits are near those of the CPU's f32 stage, as far as its dtype goes.
TEST_P(StageBits, AreThoseOfTheNetwork) {
  const auto tokens = tokens_of(290, 9);
  ModelRunner exact(checkpoint(), 1, options_of(io::DType::f32, io::DType::f32, 2), 20);
  ModelRunner runner = runner_of(2, options(), 20);
  const double tolerance =
      GetParam().dtype != io::DType::f32 || GetParam().kv_dtype != io::DType::f32 ? 0.05 : 1e-4;
  for (const std::size_t length : {1u, 40u, 290u}) {
    const std::vector<std::int32_t> part(tokens.begin(),
                                         tokens.begin() + static_cast<std::ptrdiff_t>(length));
    const auto want = logits_after(exact, part, 64);
    const auto got = logits_after(runner, part, 64);
    float largest = 0;
    for (const float value : want) largest = std::max(largest, std::abs(value));
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(got[i], want[i], largest * tolerance) << "logit " << i << " after " << length;
    }
  }
}

}  // namespace
}  // namespace penstock::model
