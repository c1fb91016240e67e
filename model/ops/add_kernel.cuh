#pragma once

#include <cstddef>

#include "model/ops/elements_cuda.cuh"

namespace penstock::model {

// out = a + b of `count` packs; a thread for each.
template <class T, int kWidth>
__device__ void add_packs(const T* a, const T* b, std::size_t count, T* out) {
  using P = Pack<T, kWidth>;
  const std::size_t i = std::size_t{simt::block_x()} * simt::threads() + simt::thread();
  if (i >= count) return;
  P x = reinterpret_cast<const P*>(a)[i];
  const P y = reinterpret_cast<const P*>(b)[i];
#pragma unroll
  for (int j = 0; j < kWidth; ++j) x.at[j] = rounded<T>(to_f32(x.at[j]) + to_f32(y.at[j]));
  reinterpret_cast<P*>(out)[i] = x;
}

}  // namespace penstock::model
