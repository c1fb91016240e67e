#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "io/checkpoint.hpp"
#include "model/config.hpp"
#include "model/stage.hpp"
#include "tests/support/random_checkpoint.hpp"
#include "tests/support/run_model.hpp"

// What the tests of stages share: a model of four small layers with sizes that divide nothing.
namespace penstock::model {

using tests::ModelRunner;

inline ModelConfig config_of_four_layers() {
  ModelConfig config;
  config.hidden_size = 96;
  config.intermediate_size = 200;
  config.num_layers = 4;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.head_dim = 24;  // hidden_size / num_heads would be 16
  config.vocab_size = 203;
  config.max_position = 512;
  config.attention_bias = true;
  return config;
}

inline const io::CheckpointReader& checkpoint() {
  static const tests::RandomCheckpoint file(config_of_four_layers(), io::DType::bf16, "stage");
  static const io::CheckpointReader reader(file.path());
  return reader;
}

inline StageOptions options_of(io::DType dtype, io::DType kv_dtype, int threads) {
  StageOptions options;
  options.dtype = dtype;
  options.kv_dtype = kv_dtype;
  options.threads = threads;
  options.max_rows = 300;
  options.max_samples = 64;
  return options;
}

inline std::vector<std::int32_t> tokens_of(std::size_t count, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<std::int32_t> tokens(count);
  for (auto& token : tokens) token = static_cast<std::int32_t>(generator() % 203);
  return tokens;
}

inline std::vector<float> copy(std::span<const float> values) {
  return {values.begin(), values.end()};
}

inline void expect_same_bits(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0);
}

// The logits after `tokens`, fed in chunks.
inline std::vector<float> logits_after(ModelRunner& runner, const std::vector<std::int32_t>& tokens,
                                       std::size_t chunk) {
  const std::uint32_t sequence = runner.start(tokens);
  for (std::size_t at = 0; at < tokens.size(); at += chunk) {
    const std::size_t rows = std::min(chunk, tokens.size() - at);
    runner.step({{sequence, std::span(tokens).subspan(at, rows), at + rows == tokens.size()}});
  }
  auto logits = copy(runner.logits(0));
  runner.retire(sequence);
  return logits;
}

}  // namespace penstock::model
