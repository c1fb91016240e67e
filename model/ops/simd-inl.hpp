// What the vector kernels share: loads and stores that convert between f32 registers and f32 or
// bf16 memory. Included once for every instruction set by Highway's foreach_target.

#if defined(PENSTOCK_MODEL_OPS_SIMD_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef PENSTOCK_MODEL_OPS_SIMD_INL_HPP_
#undef PENSTOCK_MODEL_OPS_SIMD_INL_HPP_
#else
#define PENSTOCK_MODEL_OPS_SIMD_INL_HPP_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace penstock::model::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// bf16 is carried as std::uint16_t.
using F32 = hn::CappedTag<float, 16>;
using VecF32 = hn::Vec<F32>;

HWY_INLINE VecF32 load([[maybe_unused]] F32 d, const float* from) { return hn::LoadU(d, from); }

HWY_INLINE VecF32 load([[maybe_unused]] F32 d, const std::uint16_t* from) {
  const hn::Rebind<std::uint16_t, F32> d16;
  const hn::RebindToUnsigned<F32> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, from))));
}

HWY_INLINE void store(VecF32 value, [[maybe_unused]] F32 d, float* to) { hn::StoreU(value, d, to); }

// Round to nearest, ties to even; NaN stays NaN, as io::f32_to_bf16.
HWY_INLINE void store(VecF32 value, [[maybe_unused]] F32 d, std::uint16_t* to) {
  const hn::Rebind<std::uint16_t, F32> d16;
  const hn::RebindToUnsigned<F32> d32;
  const hn::RebindToSigned<F32> i32;
  const auto bits = hn::BitCast(d32, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7FFFu)));
  const auto quiet = hn::Or(bits, hn::Set(d32, 0x00400000u));
  const auto is_nan = hn::RebindMask(d32, hn::IsNaN(value));
  const auto result = hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, rounded));
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(i32, result)), d16, to);
}

// The first `count` lanes; the others are zero, or are not written.
template <class T>
HWY_INLINE VecF32 load_part(F32 d, const T* from, std::size_t count) {
  HWY_ALIGN T lanes[hn::MaxLanes(F32())] = {};
  std::memcpy(lanes, from, count * sizeof(T));
  return load(d, lanes);
}

template <class T>
HWY_INLINE void store_part(VecF32 value, F32 d, T* to, std::size_t count) {
  HWY_ALIGN T lanes[hn::MaxLanes(F32())];
  store(value, d, lanes);
  std::memcpy(to, lanes, count * sizeof(T));
}

// Loads and stores of a loop over any length: `count` is the vector's length but for the last one.
template <class T>
HWY_INLINE VecF32 load_n(F32 d, const T* from, std::size_t count) {
  return count == hn::MaxLanes(F32()) ? load(d, from) : load_part(d, from, count);
}

template <class T>
HWY_INLINE void store_n(VecF32 value, F32 d, T* to, std::size_t count) {
  if (count == hn::MaxLanes(F32())) {
    store(value, d, to);
  } else {
    store_part(value, d, to, count);
  }
}

}  // namespace penstock::model::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
