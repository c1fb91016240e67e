#include "model/ops/add.hpp"

// clang-format off
#include "model/ops/simt_cuda.cuh"
#include "model/ops/add_kernel.cuh"
// clang-format on
#include "model/ops/launch_cuda.cuh"

namespace penstock::model {
namespace {

constexpr unsigned kThreads = 256;

template <class T, int kWidth>
__global__ void add_kernel(const T* a, const T* b, std::size_t count, T* out) {
  add_packs<T, kWidth>(a, b, count, out);
}

}  // namespace

void add(const Cuda& device, io::DType dtype, const void* a, const void* b, std::size_t count,
         void* out) {
  if (count == 0) return;
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kWide = 16 / sizeof(T);
    const bool wide = count % kWide == 0 && aligned16(a) && aligned16(b) && aligned16(out);
    const std::size_t packs = wide ? count / kWide : count;
    launch(device, wide ? add_kernel<T, kWide> : add_kernel<T, 1>, grid_for(packs, kThreads),
           kThreads, 0, static_cast<const T*>(a), static_cast<const T*>(b), packs,
           static_cast<T*>(out));
  });
}

}  // namespace penstock::model
