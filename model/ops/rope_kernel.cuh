#pragma once

#include <cstddef>
#include <cstdint>

#include "model/ops/elements_cuda.cuh"

namespace penstock::model {

// As rope_table; a thread for each frequency of each row.
__device__ inline void rope_table_entry(const std::uint32_t* positions, std::size_t rows,
                                        const float* frequencies, std::size_t half, float* table) {
  const std::size_t i = std::size_t{simt::block_x()} * simt::threads() + simt::thread();
  if (i >= rows * half) return;
  const std::size_t row = i / half;
  // Angle in f32, functions in double: the very arithmetic of the CPU's.
  const float angle = static_cast<float>(positions[row]) * frequencies[i % half];
  float* to = table + row * 2 * half + i % half;
  to[0] = static_cast<float>(cos(static_cast<double>(angle)));
  to[half] = static_cast<float>(sin(static_cast<double>(angle)));
}

// Heads of a row lie one behind the other: first those that are rotated, the last of them keys,
// then values. A block for each row; a thread rotates or copies kWidth elements of each half of a
// head.
struct RopeKvArgs {
  std::byte* x;  // [rows, row_stride]
  std::size_t row_stride;
  const float* table;  // of rope_table; null: nothing is rotated
  // The cache of this layer; null: nothing is written to it.
  std::byte* cache;
  const std::uint32_t* blocks;     // [rows]
  const std::uint32_t* positions;  // [rows]
  std::size_t block_bytes;
  std::size_t head_bytes;
  std::size_t tile_bytes;
  unsigned heads;     // of a row that are rotated
  unsigned kv_heads;  // so many of them are keys, and so many values follow
  unsigned head_dim;
};

template <class T, class Kv, int kWidth>
__device__ void put_in_cache(const RopeKvArgs& args, std::size_t row, unsigned head, bool value,
                             unsigned column, const Pack<T, kWidth>& low,
                             const Pack<T, kWidth>& high) {
  const std::uint32_t token = args.positions[row] % kKvBlockTokens;
  std::byte* tile = args.cache + args.blocks[row] * args.block_bytes + head * args.head_bytes +
                    (value ? args.tile_bytes : 0);
  Kv* to = reinterpret_cast<Kv*>(tile) + token * args.head_dim + column;
  Pack<Kv, kWidth> low_kv, high_kv;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    low_kv.at[j] = rounded<Kv>(to_f32(low.at[j]));
    high_kv.at[j] = rounded<Kv>(to_f32(high.at[j]));
  }
  *reinterpret_cast<Pack<Kv, kWidth>*>(to) = low_kv;
  *reinterpret_cast<Pack<Kv, kWidth>*>(to + args.head_dim / 2) = high_kv;
}

template <class T, class Kv, int kWidth>
__device__ void rope_kv_row(const RopeKvArgs& args) {
  using P = Pack<T, kWidth>;
  const std::size_t row = simt::block_x();
  const unsigned half = args.head_dim / 2;
  const unsigned packs = half / kWidth;  // of a head's half
  const unsigned all_heads = args.heads + (args.cache == nullptr ? 0 : args.kv_heads);
  const float* cosines = args.table + row * args.head_dim;
  for (unsigned i = simt::thread(); i < all_heads * packs; i += simt::threads()) {
    const unsigned head = i / packs;
    const unsigned column = i % packs * kWidth;
    T* at = reinterpret_cast<T*>(args.x) + row * args.row_stride + head * args.head_dim + column;
    P low = *reinterpret_cast<const P*>(at);
    P high = *reinterpret_cast<const P*>(at + half);
    if (head < args.heads && args.table != nullptr) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float a = to_f32(low.at[j]);
        const float b = to_f32(high.at[j]);
        const float c = cosines[column + j];
        const float s = cosines[half + column + j];
        low.at[j] = rounded<T>(fmaf(-b, s, a * c));
        high.at[j] = rounded<T>(fmaf(a, s, b * c));
      }
      *reinterpret_cast<P*>(at) = low;
      *reinterpret_cast<P*>(at + half) = high;
    }
    const unsigned first_key = args.heads - args.kv_heads;
    if (args.cache == nullptr || head < first_key) continue;
    const unsigned kv = head - first_key;  // keys, then values
    const bool value = kv >= args.kv_heads;
    put_in_cache<T, Kv, kWidth>(args, row, value ? kv - args.kv_heads : kv, value, column, low,
                                high);
  }
}

}  // namespace penstock::model
