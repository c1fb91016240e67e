#include "model/ops/logit_row.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "model/ops/logit_row_cpu.cpp"
// clang-format off
#include "model/ops/simd_targets.hpp"
#include <hwy/foreach_target.h>
#include "model/ops/simd-inl.hpp"
#include <hwy/contrib/math/math-inl.h>
// clang-format on

#include <algorithm>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace penstock::model::HWY_NAMESPACE {

std::size_t argmax_row(const float* logits, std::size_t count) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t whole = count / lanes * lanes;
  constexpr float kLeast = -std::numeric_limits<float>::infinity();
  VecF32 largest = hn::Set(d, kLeast);
  for (std::size_t i = 0; i < whole; i += lanes) {
    const VecF32 x = hn::LoadU(d, logits + i);
    // Not Max(), which may return either when one is NaN.
    largest = hn::IfThenElse(hn::Gt(x, largest), x, largest);
  }
  float best = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (std::size_t i = whole; i < count; ++i) best = logits[i] > best ? logits[i] : best;
  if (best == kLeast) return 0;
  const VecF32 wanted = hn::Set(d, best);
  for (std::size_t i = 0; i < whole; i += lanes) {
    const auto at = hn::FindFirstTrue(d, hn::Eq(hn::LoadU(d, logits + i), wanted));
    if (at >= 0) return i + static_cast<std::size_t>(at);
  }
  std::size_t i = whole;
  while (logits[i] != best) ++i;
  return i;
}

void softmax_weights_row(const float* logits, std::size_t count, float largest, float temperature,
                         float* weights) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const VecF32 from = hn::Set(d, largest);
  const VecF32 by = hn::Set(d, temperature);
  for (std::size_t i = 0; i < count; i += lanes) {
    const std::size_t n = std::min(lanes, count - i);
    const VecF32 x = hn::Div(hn::Sub(load_n(d, logits + i, n), from), by);
    store_n(hn::IfThenZeroElse(hn::IsNaN(x), hn::Exp(d, x)), d, weights + i, n);
  }
}

double sum_weights_row(const float* weights, std::size_t count) {
  // A sum has to wait for the one before; several do not wait for each other.
  constexpr std::size_t kSums = 4;
  const hn::CappedTag<double, 8> d;
  const hn::Rebind<float, hn::CappedTag<double, 8>> from;
  const std::size_t lanes = hn::Lanes(d);
  hn::Vec<hn::CappedTag<double, 8>> sums[kSums] = {hn::Zero(d), hn::Zero(d), hn::Zero(d),
                                                   hn::Zero(d)};
  const std::size_t whole = count / (kSums * lanes) * (kSums * lanes);
  for (std::size_t i = 0; i < whole; i += kSums * lanes) {
    for (std::size_t k = 0; k < kSums; ++k) {
      sums[k] = hn::Add(sums[k], hn::PromoteTo(d, hn::LoadU(from, weights + i + k * lanes)));
    }
  }
  const auto all = hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]));
  double sum = hn::GetLane(hn::SumOfLanes(d, all));
  for (std::size_t i = whole; i < count; ++i) sum += double{weights[i]};
  return sum;
}

void append_at_least_row(const float* weights, std::size_t count, float least,
                         std::vector<TokenProbability>& out) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const VecF32 limit = hn::Set(d, least);
  for (std::size_t i = 0; i < count; i += lanes) {
    const std::size_t n = std::min(lanes, count - i);
    // Few vectors have any.
    if (n == lanes && hn::AllFalse(d, hn::Ge(hn::LoadU(d, weights + i), limit))) continue;
    for (std::size_t k = i; k < i + n; ++k) {
      if (weights[k] >= least) out.push_back({static_cast<std::int32_t>(k), weights[k]});
    }
  }
}

}  // namespace penstock::model::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace penstock::model {

HWY_EXPORT(argmax_row);
HWY_EXPORT(softmax_weights_row);
HWY_EXPORT(sum_weights_row);
HWY_EXPORT(append_at_least_row);

std::size_t argmax(std::span<const float> logits) {
  return HWY_DYNAMIC_DISPATCH(argmax_row)(logits.data(), logits.size());
}

void softmax_weights(std::span<const float> logits, float largest, float temperature,
                     std::span<float> weights) {
  HWY_DYNAMIC_DISPATCH(softmax_weights_row)
  (logits.data(), logits.size(), largest, temperature, weights.data());
}

double sum_weights(std::span<const float> weights) {
  return HWY_DYNAMIC_DISPATCH(sum_weights_row)(weights.data(), weights.size());
}

void append_at_least(std::span<const float> weights, float least,
                     std::vector<TokenProbability>& out) {
  HWY_DYNAMIC_DISPATCH(append_at_least_row)(weights.data(), weights.size(), least, out);
}

}  // namespace penstock::model
#endif  // HWY_ONCE
