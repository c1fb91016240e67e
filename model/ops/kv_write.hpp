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

}  // namespace penstock::model
