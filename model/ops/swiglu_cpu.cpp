#include "model/ops/swiglu.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/ops/swiglu_cpu.cpp"
// clang-format off
#include "model/ops/simd_targets.hpp"
#include <hwy/foreach_target.h>
#include "model/ops/simd-inl.hpp"
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include <algorithm>

HWY_BEFORE_NAMESPACE();
namespace penstock::model::HWY_NAMESPACE {

template <class T>
void swiglu_typed(std::size_t row, std::size_t width, std::size_t begin, std::size_t end,
                  const void* gate_up, void* out) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const T* gate = static_cast<const T*>(gate_up) + row * 2 * width;
  const T* up = gate + width;
  T* to = static_cast<T*>(out) + row * width;
  const VecF32 one = hn::Set(d, 1.0f);
  const VecF32 highest = hn::Set(d, 88.0f);  // exp of more is no f32, and nothing Exp answers to
  for (std::size_t i = begin; i < end; i += lanes) {
    const std::size_t count = std::min(lanes, end - i);
    const VecF32 g = load_n(d, gate + i, count);
    const VecF32 power = hn::Exp(d, hn::Min(hn::Neg(g), highest));
    const VecF32 silu = hn::Div(g, hn::Add(one, power));
    store_n(hn::Mul(silu, load_n(d, up + i, count)), d, to + i, count);
  }
}

void swiglu_piece(io::DType dtype, std::size_t row, std::size_t width, std::size_t begin,
                  std::size_t end, const void* gate_up, void* out) {
  if (dtype == io::DType::f32) {
    swiglu_typed<float>(row, width, begin, end, gate_up, out);
  } else {
    swiglu_typed<std::uint16_t>(row, width, begin, end, gate_up, out);
  }
}

}  // namespace penstock::model::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock::model {

HWY_EXPORT(swiglu_piece);

void swiglu(const Cpu& device, io::DType dtype, std::size_t rows, std::size_t width,
            const void* gate_up, void* out) {
  constexpr std::size_t kPiece = 1024;  // a multiple of every vector length
  auto* const kernel = &HWY_DYNAMIC_DISPATCH(swiglu_piece);
  const std::size_t pieces = (width + kPiece - 1) / kPiece;
  const auto tasks = static_cast<std::ptrdiff_t>(rows * pieces);
#pragma omp parallel for schedule(static) num_threads(device.threads) if (tasks > 4)
  for (std::ptrdiff_t task = 0; task < tasks; ++task) {
    const std::size_t row = static_cast<std::size_t>(task) / pieces;
    const std::size_t begin = static_cast<std::size_t>(task) % pieces * kPiece;
    kernel(dtype, row, width, begin, std::min(width, begin + kPiece), gate_up, out);
  }
}

}  // namespace penstock::model
#endif  // HWY_ONCE
