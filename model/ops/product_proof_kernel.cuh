#pragma once

// See product_proof_cpu.hpp for the numbers; simt_cuda.cuh for what is included first.

#include <cstddef>
#include <cstdint>

#include "model/ops/elements_cuda.cuh"

namespace penstock::model {

// Distinct rows, over and over: an odd number, so that each comes to every place of a tile. At most
// as many as the smallest call has.
inline constexpr std::size_t kProofRows = 15;

// A number with a random significand, sign and an exponent of -8 … -1, for each index.
__host__ __device__ inline float proof_number(std::uint64_t index) {
  std::uint64_t hash = (index + 1) * 0x9E3779B97F4A7C15u;  // SplitMix64 (Steele et al. 2014)
  hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9u;
  hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EBu;
  const auto bits = static_cast<std::uint32_t>(hash >> 32);
  const std::uint32_t exponent = 126 - ((bits >> 23) & 7);
  union {
    std::uint32_t bits;
    float value;
  } both;
  both.bits = (bits & 0x807FFFFFu) | (exponent << 23);
  return both.value;
}

// Element `i` of a row of the weight (`weight`) or of the input: its second half is the first, in
// the input with the other sign and, in odd rows, 1/64 more. An odd one at the end is zero. Sums of
// even rows are what rounding left of numbers that cancel, which all output types hold in full; in
// those of odd rows most differences are below the last bit of a short output.
__host__ __device__ inline float proof_element(std::uint64_t row, std::size_t i, std::size_t width,
                                               bool weight) {
  const std::size_t half = width / 2;
  if (i >= 2 * half) return 0.0f;
  const std::uint64_t index =
      weight ? row * width + i % half : ~std::uint64_t{0} / 2 + row % kProofRows * half + i % half;
  const float value = proof_number(index);
  if (weight || i < half) return value;
  return row % kProofRows % 2 == 0 ? -value : -value * (1.0f + 1.0f / 64);
}

template <class T>
__device__ void fill_proof(std::size_t rows, std::size_t width, bool weight, T* to) {
  const std::size_t stride = std::size_t{simt::blocks_x()} * simt::threads();
  for (std::size_t i = std::size_t{simt::block_x()} * simt::threads() + simt::thread();
       i < rows * width; i += stride) {
    to[i] = rounded<T>(proof_element(i / width, i % width, width, weight));
  }
}

// In odd columns small against the sums of odd rows, and reaching below the last bit of the output:
// who rounds a sum before the bias is added shows. In even columns zero, which hides nothing.
template <class T>
__device__ void fill_proof_bias(std::size_t count, T* to) {
  const std::size_t stride = std::size_t{simt::blocks_x()} * simt::threads();
  for (std::size_t i = std::size_t{simt::block_x()} * simt::threads() + simt::thread(); i < count;
       i += stride) {
    to[i] = rounded<T>(i % 2 == 0 ? 0.0f : proof_number(i) * 0x1p-4f);
  }
}

// Counts units that are not those of the expected rows, which repeat, or have all bits set as where
// nothing was written.
template <class Unit>
__device__ void count_unequal(const Unit* rows, std::size_t count, std::size_t width,
                              const Unit* expected, std::uint32_t* unequal) {
  const std::size_t stride = std::size_t{simt::blocks_x()} * simt::threads();
  std::uint32_t mine = 0;
  for (std::size_t i = std::size_t{simt::block_x()} * simt::threads() + simt::thread();
       i < count * width; i += stride) {
    const Unit unit = rows[i];
    const bool equal = unit == expected[i / width % kProofRows * width + i % width];
    mine += equal && unit != static_cast<Unit>(~Unit{0}) ? 0 : 1;
  }
  if (mine > 0) simt::shared_add(unequal, mine);
}

}  // namespace penstock::model
