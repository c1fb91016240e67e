#pragma once

#include <cstddef>

#include "io/dtype.hpp"
#include "model/ops/device.hpp"

namespace penstock::model {

// The residual stream's addition and the norm behind it, for every row:
//   x = x + delta             (rounded to dtype; left out when delta is null)
//   out = weight * x / sqrt(mean(x^2) + eps)
// The norm reads the rounded x, so that a stage's boundary between addition and norm changes no
// bit. Arithmetic in f32. Source: transformers, LlamaRMSNorm and LlamaDecoderLayer.
struct RmsNorm {
  std::size_t rows = 0;
  std::size_t width = 0;
  io::DType dtype = io::DType::f32;  // of x, delta and out: f32 or bf16
  void* x = nullptr;                 // [rows, width], updated
  const void* delta = nullptr;       // [rows, width]
  const float* weight = nullptr;     // [width]
  float eps = 0;
  void* out = nullptr;  // [rows, width]
};

void rms_norm(const Cpu& device, const RmsNorm& args);
// Also f16. Rows lie at multiples of 16 bytes where their length is one.
void rms_norm(const Cuda& device, const RmsNorm& args);

}  // namespace penstock::model
