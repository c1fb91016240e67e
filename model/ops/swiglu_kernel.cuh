#pragma once

#include <cstddef>

#include "model/ops/elements_cuda.cuh"

namespace penstock::model {

// As swiglu; a thread for each pack of `packs` in a row of out.
template <class T, int kWidth>
__device__ void swiglu_packs(const T* gate_up, std::size_t rows, std::size_t packs, T* out) {
  using P = Pack<T, kWidth>;
  const std::size_t i = std::size_t{simt::block_x()} * simt::threads() + simt::thread();
  if (i >= rows * packs) return;
  const P* row = reinterpret_cast<const P*>(gate_up) + i / packs * 2 * packs;
  P gate = row[i % packs];
  const P up = row[i % packs + packs];
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const float g = to_f32(gate.at[j]);
    // expf(-g) is infinite where g is very negative: then the quotient is -0, as it should be.
    gate.at[j] = rounded<T>(g / (1.0f + expf(-g)) * to_f32(up.at[j]));
  }
  reinterpret_cast<P*>(out)[i] = gate;
}

}  // namespace penstock::model
