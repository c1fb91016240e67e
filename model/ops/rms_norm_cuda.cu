#include "model/ops/rms_norm.hpp"

// clang-format off
#include "model/ops/simt_cuda.cuh"
#include "model/ops/rms_norm_kernel.cuh"
// clang-format on
#include "model/ops/launch_cuda.cuh"

namespace penstock::model {
namespace {

constexpr unsigned kThreads = 256;

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) rms_norm_kernel(const RmsNorm args) {
  norm_row<T, kWidth>(args);
}

}  // namespace

void rms_norm(const Cuda& device, const RmsNorm& args) {
  if (args.rows == 0) return;
  with_type(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kWide = 16 / sizeof(T);
    // By the width alone: it decides about bits.
    const bool wide = args.width % kWide == 0;
    launch(device, wide ? rms_norm_kernel<T, kWide> : rms_norm_kernel<T, 1>,
           dim3(static_cast<unsigned>(args.rows)), kThreads, kThreads / 32 * sizeof(float), args);
  });
}

}  // namespace penstock::model
