#pragma once

#include <cstddef>
#include <cstdint>

#include "io/dtype.hpp"
#include "model/ops/device.hpp"
#include "model/ops/kv_layout.hpp"

namespace penstock::model {

// Writes every row's keys and values into its block of the cache, rounded to the cache's dtype.
struct KvWrite {
  std::size_t rows = 0;
  io::DType dtype = io::DType::f32;          // of k and v: f32 or bf16
  std::size_t row_stride = 0;                // elements from row to row of k and of v
  const void* k = nullptr;                   // [rows, kv_heads, head_dim], rotated
  const void* v = nullptr;                   // [rows, kv_heads, head_dim]
  const std::uint32_t* blocks = nullptr;     // [rows]: the block a row's token lies in
  const std::uint32_t* positions = nullptr;  // [rows]
  KvLayout layout;
  std::byte* cache = nullptr;  // of this layer
};

void kv_write(const Cpu& device, const KvWrite& args);

// rope and kv_write at once, on a GPU: rotates q and k of every row in place, in f32, rounded once
// to `dtype`, then writes k and v into their block, rounded to the cache's dtype.
struct RopeKvWrite {
  std::size_t rows = 0;
  std::size_t heads = 0;                     // of q; those of k and v are the layout's kv_heads
  io::DType dtype = io::DType::f32;          // of qkv
  std::size_t row_stride = 0;                // elements from row to row
  void* qkv = nullptr;                       // [rows, heads of q, k and v, head_dim]
  const float* table = nullptr;              // of rope_table; null: nothing is rotated
  const std::uint32_t* blocks = nullptr;     // [rows]: the block a row's token lies in
  const std::uint32_t* positions = nullptr;  // [rows]
  CudaKvLayout layout;
  std::byte* cache = nullptr;  // of this layer
};

void rope_and_kv_write(const Cuda& device, const RopeKvWrite& args);

}  // namespace penstock::model
