#include "model/ops/convert.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/ops/convert_cpu.cpp"
// clang-format off
#include "model/ops/simd_targets.hpp"
#include <hwy/foreach_target.h>
#include "model/ops/simd-inl.hpp"
// clang-format on

#include <algorithm>

HWY_BEFORE_NAMESPACE();
namespace penstock::model::HWY_NAMESPACE {

template <class From, class To>
void convert_each(const From* from, std::size_t count, To* to) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < count; i += lanes) {
    const std::size_t part = std::min(lanes, count - i);
    store_n(load_n(d, from + i, part), d, to + i, part);
  }
}

void widen_each(const std::uint16_t* from, std::size_t count, float* to) {
  convert_each(from, count, to);
}

void narrow_each(const float* from, std::size_t count, std::uint16_t* to) {
  convert_each(from, count, to);
}

}  // namespace penstock::model::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock::model {

HWY_EXPORT(widen_each);
HWY_EXPORT(narrow_each);

void widen(const std::uint16_t* from, std::size_t count, float* to) {
  HWY_DYNAMIC_DISPATCH(widen_each)(from, count, to);
}

void narrow(const float* from, std::size_t count, std::uint16_t* to) {
  HWY_DYNAMIC_DISPATCH(narrow_each)(from, count, to);
}

}  // namespace penstock::model
#endif  // HWY_ONCE
