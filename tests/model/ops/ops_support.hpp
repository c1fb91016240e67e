#pragma once

#include <hwy/targets.h>

#include <cstdint>
#include <random>
#include <type_traits>
#include <vector>

#include "io/dtype.hpp"

namespace penstock::model {

// bf16 values are std::uint16_t; f16 values, which only GPUs compute with, are these.
struct Half {
  std::uint16_t bits = 0;
  bool operator==(const Half&) const = default;
};

template <class T>
constexpr io::DType dtype_of() {
  if (std::is_same_v<T, float>) return io::DType::f32;
  return std::is_same_v<T, Half> ? io::DType::f16 : io::DType::bf16;
}

template <class T>
T from_f32(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else if constexpr (std::is_same_v<T, Half>) {
    return {io::f32_to_f16(value)};
  } else {
    return io::f32_to_bf16(value);
  }
}

template <class T>
double to_double(T value) {
  if constexpr (std::is_same_v<T, float>) {
    return static_cast<double>(value);
  } else if constexpr (std::is_same_v<T, Half>) {
    return static_cast<double>(io::f16_to_f32(value.bits));
  } else {
    return static_cast<double>(io::bf16_to_f32(value));
  }
}

// Half an ulp of the largest significand, and what f32 arithmetic before it may add.
template <class T>
constexpr double relative_error() {
  if (std::is_same_v<T, float>) return 2e-6;
  return (std::is_same_v<T, Half> ? 1.0 / 2048 : 1.0 / 256) + 2e-6;
}

template <class T>
std::vector<T> random_values(std::size_t count, std::uint32_t seed, float range = 2.0f) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> distribution(-range, range);
  std::vector<T> values(count);
  for (T& value : values) value = from_f32<T>(distribution(generator));
  return values;
}

// Calls `body` once for each instruction set that this machine has and kernels are built for.
template <class Body>
void on_each_instruction_set(Body&& body) {
  const std::int64_t here = hwy::SupportedTargets();
  for (std::int64_t rest = here; rest != 0; rest &= rest - 1) {
    // Sets from the lowest bit on: bits rise from the best target to the baseline.
    hwy::SetSupportedTargetsForTest(rest);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace penstock::model
