#include "model/ops/rms_norm.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/ops/rms_norm_cpu.cpp"
// clang-format off
#include "model/ops/simd_targets.hpp"
#include <hwy/foreach_target.h>
#include "model/ops/simd-inl.hpp"
// clang-format on

#include <algorithm>
#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace penstock::model::HWY_NAMESPACE {

template <class T>
void norm_row(const RmsNorm& args, std::size_t row) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t width = args.width;
  T* x = static_cast<T*>(args.x) + row * width;
  T* out = static_cast<T*>(args.out) + row * width;
  if (args.delta != nullptr) {
    const T* delta = static_cast<const T*>(args.delta) + row * width;
    for (std::size_t i = 0; i < width; i += lanes) {
      const std::size_t count = std::min(lanes, width - i);
      store_n(hn::Add(load_n(d, x + i, count), load_n(d, delta + i, count)), d, x + i, count);
    }
  }
  VecF32 squares = hn::Zero(d);
  for (std::size_t i = 0; i < width; i += lanes) {
    const VecF32 v = load_n(d, x + i, std::min(lanes, width - i));
    squares = hn::MulAdd(v, v, squares);
  }
  const float mean = hn::GetLane(hn::SumOfLanes(d, squares)) / static_cast<float>(width);
  const VecF32 scale = hn::Set(d, 1.0f / std::sqrt(mean + args.eps));
  for (std::size_t i = 0; i < width; i += lanes) {
    const std::size_t count = std::min(lanes, width - i);
    const VecF32 v = hn::Mul(load_n(d, x + i, count), scale);
    store_n(hn::Mul(v, load_n(d, args.weight + i, count)), d, out + i, count);
  }
}

void norm_rows(const RmsNorm& args, std::size_t row) {
  if (args.dtype == io::DType::f32) {
    norm_row<float>(args, row);
  } else {
    norm_row<std::uint16_t>(args, row);
  }
}

}  // namespace penstock::model::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock::model {

HWY_EXPORT(norm_rows);

void rms_norm(const Cpu& device, const RmsNorm& args) {
  auto* const kernel = &HWY_DYNAMIC_DISPATCH(norm_rows);
  const auto rows = static_cast<std::ptrdiff_t>(args.rows);
#pragma omp parallel for schedule(static) num_threads(device.threads) if (rows > 8)
  for (std::ptrdiff_t row = 0; row < rows; ++row) kernel(args, static_cast<std::size_t>(row));
}

}  // namespace penstock::model
#endif  // HWY_ONCE
