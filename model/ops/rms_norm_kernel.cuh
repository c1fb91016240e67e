#pragma once

#include <cstddef>

#include "model/ops/elements_cuda.cuh"
#include "model/ops/rms_norm.hpp"

namespace penstock::model {

// The sum of all threads' values, the same for each: lanes by a butterfly, then the warps in order.
// `memory` has room for a float of each warp.
__device__ inline float block_sum(float value, float* memory) {
#pragma unroll
  for (unsigned mask = 16; mask > 0; mask /= 2) value += simt::shuffle_xor(value, mask);
  if (simt::thread() % 32 == 0) memory[simt::thread() / 32] = value;
  simt::barrier();
  float sum = 0.0f;
  for (unsigned warp = 0; warp < simt::threads() / 32; ++warp) sum += memory[warp];
  return sum;
}

// A row of rms_norm in one block. The order of the sum depends on width, kWidth and the number of
// threads, all of them the same for every row of a model.
template <class T, int kWidth>
__device__ void norm_row(const RmsNorm& args) {
  using P = Pack<T, kWidth>;
  using Weights = Pack < float, kWidth<4 ? kWidth : 4>;
  constexpr int kParts = kWidth < 4 ? 1 : kWidth / 4;
  const std::size_t packs = args.width / kWidth;
  const std::size_t at = simt::block_x() * packs;
  P* x = static_cast<P*>(args.x) + at;
  const P* delta = args.delta == nullptr ? nullptr : static_cast<const P*>(args.delta) + at;
  P* out = static_cast<P*>(args.out) + at;
  float squares = 0.0f;
  for (std::size_t i = simt::thread(); i < packs; i += simt::threads()) {
    P value = x[i];
    if (delta != nullptr) {
      const P more = delta[i];
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        value.at[j] = rounded<T>(to_f32(value.at[j]) + to_f32(more.at[j]));
      }
      x[i] = value;
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float v = to_f32(value.at[j]);
      squares = fmaf(v, v, squares);
    }
  }
  const float sum = block_sum(squares, reinterpret_cast<float*>(simt::shared_memory()));
  const float scale = 1.0f / sqrtf(sum / static_cast<float>(args.width) + args.eps);
  for (std::size_t i = simt::thread(); i < packs; i += simt::threads()) {
    P value = x[i];  // each thread reads what it wrote itself
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const Weights weights = reinterpret_cast<const Weights*>(args.weight)[i * kParts + part];
#pragma unroll
      for (int j = 0; j < kWidth / kParts; ++j) {
        T& v = value.at[part * 4 + j];
        v = rounded<T>(to_f32(v) * scale * weights.at[j]);
      }
    }
    out[i] = value;
  }
}

}  // namespace penstock::model
