#include "model/ops/swiglu.hpp"

// clang-format off
#include "model/ops/simt_cuda.cuh"
#include "model/ops/swiglu_kernel.cuh"
// clang-format on
#include "model/ops/launch_cuda.cuh"

namespace penstock::model {
namespace {

constexpr unsigned kThreads = 256;

template <class T, int kWidth>
__global__ void swiglu_kernel(const T* gate_up, std::size_t rows, std::size_t packs, T* out) {
  swiglu_packs<T, kWidth>(gate_up, rows, packs, out);
}

}  // namespace

void swiglu(const Cuda& device, io::DType dtype, std::size_t rows, std::size_t width,
            const void* gate_up, void* out) {
  if (rows * width == 0) return;
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kWide = 16 / sizeof(T);
    const bool wide = width % kWide == 0 && aligned16(gate_up) && aligned16(out);
    const std::size_t packs = wide ? width / kWide : width;
    launch(device, wide ? swiglu_kernel<T, kWide> : swiglu_kernel<T, 1>,
           grid_for(rows * packs, kThreads), kThreads, 0, static_cast<const T*>(gate_up), rows,
           packs, static_cast<T*>(out));
  });
}

}  // namespace penstock::model
