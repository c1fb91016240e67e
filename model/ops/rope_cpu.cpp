#include "model/ops/rope.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/ops/rope_cpu.cpp"
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
void rotate_typed(const Rope& args, std::size_t row) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t half = args.head_dim / 2;
  const float* cosines = args.table + row * args.head_dim;
  const float* sines = cosines + half;
  for (std::size_t head = 0; head < args.heads; ++head) {
    T* low = static_cast<T*>(args.x) + row * args.row_stride + head * args.head_dim;
    T* high = low + half;
    for (std::size_t i = 0; i < half; i += lanes) {
      const std::size_t count = std::min(lanes, half - i);
      const VecF32 a = load_n(d, low + i, count);
      const VecF32 b = load_n(d, high + i, count);
      const VecF32 c = load_n(d, cosines + i, count);
      const VecF32 s = load_n(d, sines + i, count);
      store_n(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, low + i, count);
      store_n(hn::MulAdd(a, s, hn::Mul(b, c)), d, high + i, count);
    }
  }
}

void rotate_row(const Rope& args, std::size_t row) {
  if (args.dtype == io::DType::f32) {
    rotate_typed<float>(args, row);
  } else {
    rotate_typed<std::uint16_t>(args, row);
  }
}

}  // namespace penstock::model::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock::model {

HWY_EXPORT(rotate_row);

void rope(const Cpu& device, const Rope& args) {
  auto* const kernel = &HWY_DYNAMIC_DISPATCH(rotate_row);
  const auto rows = static_cast<std::ptrdiff_t>(args.rows);
#pragma omp parallel for schedule(static) num_threads(device.threads) if (rows > 8)
  for (std::ptrdiff_t row = 0; row < rows; ++row) kernel(args, static_cast<std::size_t>(row));
}

void rope_table(const Cpu& device, std::span<const std::uint32_t> positions,
                std::span<const float> frequencies, float* table) {
  const std::size_t half = frequencies.size();
  const auto rows = static_cast<std::ptrdiff_t>(positions.size());
#pragma omp parallel for schedule(static) num_threads(device.threads) if (rows > 8)
  for (std::ptrdiff_t row = 0; row < rows; ++row) {
    float* cosines = table + static_cast<std::size_t>(row) * 2 * half;
    const auto position = static_cast<float>(positions[static_cast<std::size_t>(row)]);
    for (std::size_t i = 0; i < half; ++i) {
      // The angle is rounded to f32 as in transformers; double functions of it do not depend on
      // the C library's f32 versions.
      const double angle = static_cast<double>(position * frequencies[i]);
      cosines[i] = static_cast<float>(std::cos(angle));
      cosines[half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace penstock::model
#endif  // HWY_ONCE
