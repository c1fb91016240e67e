// The devices' model beside speeds that others measured and published. What is asserted is the
// error that model/README.md admits.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "model/device_model.hpp"
#include "model/stage_memory.hpp"
#include "tests/support/llama_shapes.hpp"

namespace penstock::model {
namespace {

// In FP8, weights and KV cache: a byte for a number is, in bf16, twice the memory and its speed.
DeviceModel fp8(const char* name, double flops_per_second) {
  DeviceModel device = device_model(name);
  device.bf16_flops_per_second = flops_per_second;
  device.memory_bytes_per_second *= 2;
  device.memory_bytes *= 2;
  return device;
}

// Tokens of answers a second on one device: as many sequences as fit when none may be evicted, at
// most 2048, in steps with as many rows of prompts as keep their number.
double predicted(const ModelConfig& config, const DeviceModel& device, double prompt,
                 double answer) {
  StageOptions options;
  options.max_rows = 8192;
  options.max_samples = 2048;
  options.max_context = 8192;
  const StageRange all{0, config.num_layers, true, true};
  const StageMemory memory = stage_memory(config, all, options);
  const double tokens = static_cast<double>(memory.kv_bytes(device.memory_bytes)) /
                        static_cast<double>(memory.kv_block_bytes) * kKvBlockTokens;
  const double sequences = std::min(tokens / (prompt + answer), 2048.0);
  const double prompt_rows = sequences * prompt / answer;
  StepShape shape;
  shape.rows = static_cast<std::uint64_t>(sequences + prompt_rows);
  shape.sampled = static_cast<std::uint64_t>(sequences);
  shape.cached = static_cast<std::uint64_t>(sequences * (prompt + answer / 2));
  shape.attended = shape.cached + static_cast<std::uint64_t>(prompt_rows * prompt / 2);
  const StepCost cost(cost_by_device(config, io::DType::bf16, io::DType::bf16, device), all);
  return sequences / cost.seconds(shape);
}

struct Published {
  const char* what;
  double measured;
  double predicted;
};

void expect_within(const std::vector<Published>& figures, double least, double most) {
  for (const Published& p : figures) {
    const double error = p.predicted / p.measured - 1;
    fmt::print("{:<40} measured {:>7.0f}, predicted {:>7.0f}: {:+.0f} %\n", p.what, p.measured,
               p.predicted, 100 * error);
    EXPECT_GE(error, least) << p.what;
    EXPECT_LE(error, most) << p.what;
  }
}

// NVIDIA/TensorRT-LLM, docs/source/performance/perf-overview.md of v1.0: output tokens/s, one GPU,
// FP8. FP8 products: the table of which device_model.cpp tells, 1402.6 and 1453.4 TFLOP/s.
TEST(PublishedSpeeds, TensorRtLlmInFp8) {
  const DeviceModel h100 = fp8("h100-sxm", 1402.6e12);
  const DeviceModel h200 = fp8("h200", 1453.4e12);
  expect_within(
      {
          {"8B, H100, 128/128", 28312, predicted(tests::llama_8b(), h100, 128, 128)},
          {"8B, H100, 128/2048", 22714, predicted(tests::llama_8b(), h100, 128, 2048)},
          {"8B, H100, 500/2000", 17660, predicted(tests::llama_8b(), h100, 500, 2000)},
          {"8B, H100, 1000/1000", 15220, predicted(tests::llama_8b(), h100, 1000, 1000)},
          {"8B, H100, 2048/128", 3450, predicted(tests::llama_8b(), h100, 2048, 128)},
          {"8B, H100, 2048/2048", 9305, predicted(tests::llama_8b(), h100, 2048, 2048)},
          {"8B, H200, 128/2048", 26221, predicted(tests::llama_8b(), h200, 128, 2048)},
          {"8B, H200, 1000/1000", 17744, predicted(tests::llama_8b(), h200, 1000, 1000)},
          {"8B, H200, 2048/128", 3538, predicted(tests::llama_8b(), h200, 2048, 128)},
          {"70B, H200, 128/128", 3803, predicted(tests::llama_70b(), h200, 128, 128)},
          {"70B, H200, 128/2048", 4336, predicted(tests::llama_70b(), h200, 128, 2048)},
          {"70B, H200, 1000/1000", 2909, predicted(tests::llama_70b(), h200, 1000, 1000)},
          {"70B, H200, 2048/128", 442, predicted(tests::llama_70b(), h200, 2048, 128)},
          {"70B, H200, 2048/2048", 2003, predicted(tests::llama_70b(), h200, 2048, 2048)},
      },
      0.05, 0.4);
}

// Hazy Research, "Look Ma, No Bubbles!" (2025): Llama-3.2-1B, one sequence in bf16 on an H100;
// vLLM and SGLang read at most half of 3.35 TB/s, a kernel made of all 78 %.
TEST(PublishedSpeeds, OneSequenceOnAnH100) {
  const ModelConfig config = tests::llama_1b();
  const StageRange all{0, config.num_layers, true, true};
  const StepCost cost(
      cost_by_device(config, io::DType::bf16, io::DType::bf16, device_model("h100-sxm")), all);
  const double bytes = 2 * 1.236e9;
  expect_within(
      {{"1B, H100, one sequence", 0.5 * 3.35e12 / bytes, 1 / cost.seconds({1, 1, 96, 96})}}, 0,
      0.5);
}

}  // namespace
}  // namespace penstock::model
