#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "io/dtype.hpp"

// The element types of tensors on the GPU: float, __nv_bfloat16, __half.
namespace penstock::model {

__host__ __device__ inline float to_f32(float value) { return value; }
__host__ __device__ inline float to_f32(__nv_bfloat16 value) { return __bfloat162float(value); }
__host__ __device__ inline float to_f32(__half value) { return __half2float(value); }

// To nearest, ties to even.
template <class T>
__host__ __device__ T rounded(float value) {
  if constexpr (std::is_same_v<T, float>) {
    return value;
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else {
    return __float2half_rn(value);
  }
}

// Two neighbours in one register, `low` at the lower address.
template <class T>
__host__ __device__ std::uint32_t packed(float low, float high) {
  static_assert(sizeof(T) == 2);
  union {
    T value;
    std::uint16_t bits;
  } a, b;
  a.value = rounded<T>(low);
  b.value = rounded<T>(high);
  return a.bits | static_cast<std::uint32_t>(b.bits) << 16;
}

// `kCount` neighbours that are read and written at once.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T at[kCount];
};

// body(T()) with T as `dtype` says.
template <class Body>
auto with_type(io::DType dtype, Body&& body) {
  switch (dtype) {
    case io::DType::bf16:
      return body(__nv_bfloat16());
    case io::DType::f16:
      return body(__half());
    case io::DType::f32:
      break;
  }
  return body(float());
}

}  // namespace penstock::model
