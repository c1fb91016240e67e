#include "io/dtype.hpp"

#include <bit>
#include <cstring>

namespace penstock::io {
namespace {

// The scalar conversions have no branches (selects only), so that the loops below vectorize.

std::uint32_t select(bool condition, std::uint32_t yes, std::uint32_t no) {
  // By a mask: compilers keep `?:` a branch where a side adds floats, which may trap.
  const std::uint32_t mask = 0u - static_cast<std::uint32_t>(condition);
  return (yes & mask) | (no & ~mask);
}

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }

float widen_bf16(std::uint16_t bits) { return float_of(static_cast<std::uint32_t>(bits) << 16); }

std::uint16_t narrow_to_bf16(float value) {
  const std::uint32_t bits = bits_of(value);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  // A NaN keeps its sign and upper payload and becomes quiet.
  return static_cast<std::uint16_t>(select(nan, (bits >> 16) | 0x40u, rounded));
}

// The two f16 conversions follow F. Giesen, "half_to_float_fast5" and "float_to_half_fast3_rtne"
// (gist.github.com/rygorous/2156668, public domain).
float widen_f16(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(half & 0x7fffu) << 13;
  const std::uint32_t exponent = magnitude & 0x0f800000u;
  const std::uint32_t rebias = (127u - 15u) << 23;
  const std::uint32_t normal = magnitude + rebias;
  const std::uint32_t special = normal + rebias;  // infinity, NaN: exponent 31 becomes 255
  // A subnormal is mantissa * 2^-24: put it below an implicit one and subtract the one.
  const std::uint32_t subnormal = bits_of(float_of(normal + (1u << 23)) - float_of(113u << 23));
  const std::uint32_t finite = select(exponent == 0, subnormal, normal);
  return float_of(sign | select(exponent == 0x0f800000u, special, finite));
}

std::uint16_t narrow_to_f16(float value) {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x1ffu);  // quiet, payload kept
  // At least 2^16: too large for f16. (65520 to 2^16 round up to infinity by the carry below.)
  const std::uint32_t huge = select(magnitude > 0x7f800000u, nan, 0x7c00u);
  // Below 2^-14: adding 0.5 aligns the ten mantissa bits at the bottom, rounding to even.
  const float half = 0.5f;
  const std::uint32_t subnormal = bits_of(float_of(magnitude) + half) - bits_of(half);
  const std::uint32_t odd = (magnitude >> 13) & 1u;
  const std::uint32_t normal = (magnitude - ((127u - 15u) << 23) + 0xfffu + odd) >> 13;
  const std::uint32_t finite = select(magnitude < (113u << 23), subnormal, normal);
  return static_cast<std::uint16_t>(sign | select(magnitude >= (143u << 23), huge, finite));
}

template <typename From, typename To, typename Function>
void convert_each(const void* from, void* to, std::size_t count, Function function) {
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  for (std::size_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, source + i * sizeof(From), sizeof(From));
    const To result = function(value);
    std::memcpy(target + i * sizeof(To), &result, sizeof(To));
  }
}

}  // namespace

std::size_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 2; }

std::string_view to_string(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
  }
  return "?";
}

std::optional<DType> parse_dtype(std::string_view name) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    if (name == to_string(dtype)) return dtype;
  }
  return std::nullopt;
}

float bf16_to_f32(std::uint16_t bits) { return widen_bf16(bits); }
std::uint16_t f32_to_bf16(float value) { return narrow_to_bf16(value); }
float f16_to_f32(std::uint16_t bits) { return widen_f16(bits); }
std::uint16_t f32_to_f16(float value) { return narrow_to_f16(value); }

void convert(const void* from, DType from_type, void* to, DType to_type, std::size_t count) {
  using Half = std::uint16_t;
  if (count == 0) return;
  if (from_type == to_type) {
    std::memcpy(to, from, count * size_of(from_type));
  } else if (from_type == DType::f32 && to_type == DType::f16) {
    convert_each<float, Half>(from, to, count, narrow_to_f16);
  } else if (from_type == DType::f32) {
    convert_each<float, Half>(from, to, count, narrow_to_bf16);
  } else if (to_type == DType::f32 && from_type == DType::f16) {
    convert_each<Half, float>(from, to, count, widen_f16);
  } else if (to_type == DType::f32) {
    convert_each<Half, float>(from, to, count, widen_bf16);
  } else if (from_type == DType::f16) {
    convert_each<Half, Half>(from, to, count, [](Half h) { return narrow_to_bf16(widen_f16(h)); });
  } else {
    convert_each<Half, Half>(from, to, count, [](Half h) { return narrow_to_f16(widen_bf16(h)); });
  }
}

}  // namespace penstock::io
