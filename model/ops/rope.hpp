#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "io/dtype.hpp"
#include "model/config.hpp"
#include "model/ops/device.hpp"

namespace penstock::model {

// The rotary embedding's frequencies, [head_dim / 2], with the config's scaling, rounded where
// transformers rounds. Source: transformers, modeling_rope_utils.py (default, linear, llama3).
std::vector<float> rope_frequencies(const ModelConfig& config);

// Cosine and sine of position * frequency for each row of a step: `table` is
// [rows, 2, head_dim / 2], cosines before sines.
void rope_table(const Cpu& device, std::span<const std::uint32_t> positions,
                std::span<const float> frequencies, float* table);
void rope_table(const Cuda& device, std::span<const std::uint32_t> positions,
                std::span<const float> frequencies, float* table);

// Rotates the first `heads` heads of every row in place, in f32, rounded once. Element i turns
// with element i + head_dim / 2 ("rotate_half", the layout of Hugging Face checkpoints).
struct Rope {
  std::size_t rows = 0;
  std::size_t heads = 0;
  std::size_t head_dim = 0;
  std::size_t row_stride = 0;        // elements from row to row of x
  io::DType dtype = io::DType::f32;  // f32 or bf16
  const float* table = nullptr;      // of rope_table
  void* x = nullptr;                 // [rows, row_stride]
};

void rope(const Cpu& device, const Rope& args);
void rope(const Cuda& device, const Rope& args);  // also f16; see rope_and_kv_write

}  // namespace penstock::model
