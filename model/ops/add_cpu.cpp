#include "model/ops/add.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/ops/add_cpu.cpp"
// clang-format off
#include "model/ops/simd_targets.hpp"
#include <hwy/foreach_target.h>
#include "model/ops/simd-inl.hpp"
// clang-format on

#include <algorithm>

HWY_BEFORE_NAMESPACE();
namespace penstock::model::HWY_NAMESPACE {

template <class T>
void add_typed(const void* a, const void* b, std::size_t begin, std::size_t end, void* out) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const T* x = static_cast<const T*>(a);
  const T* y = static_cast<const T*>(b);
  T* to = static_cast<T*>(out);
  for (std::size_t i = begin; i < end; i += lanes) {
    const std::size_t count = std::min(lanes, end - i);
    store_n(hn::Add(load_n(d, x + i, count), load_n(d, y + i, count)), d, to + i, count);
  }
}

void add_range(io::DType dtype, const void* a, const void* b, std::size_t begin, std::size_t end,
               void* out) {
  if (dtype == io::DType::f32) {
    add_typed<float>(a, b, begin, end, out);
  } else {
    add_typed<std::uint16_t>(a, b, begin, end, out);
  }
}

}  // namespace penstock::model::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock::model {

HWY_EXPORT(add_range);

void add(const Cpu& device, io::DType dtype, const void* a, const void* b, std::size_t count,
         void* out) {
  constexpr std::size_t kPiece = 4096;
  auto* const kernel = &HWY_DYNAMIC_DISPATCH(add_range);
  const auto pieces = static_cast<std::ptrdiff_t>((count + kPiece - 1) / kPiece);
#pragma omp parallel for schedule(static) num_threads(device.threads) if (pieces > 4)
  for (std::ptrdiff_t piece = 0; piece < pieces; ++piece) {
    const std::size_t begin = static_cast<std::size_t>(piece) * kPiece;
    kernel(dtype, a, b, begin, std::min(count, begin + kPiece), out);
  }
}

}  // namespace penstock::model
#endif  // HWY_ONCE
