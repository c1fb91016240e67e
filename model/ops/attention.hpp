#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "io/dtype.hpp"
#include "model/ops/device.hpp"
#include "model/ops/host_buffer.hpp"
#include "model/ops/kv_layout.hpp"

namespace penstock::model {

// A sequence's rows of a step: row `first_row + i` is the token at `position + i`.
struct AttentionSequence {
  std::size_t first_row = 0;
  std::size_t rows = 0;
  std::size_t position = 0;
  const std::uint32_t* blocks = nullptr;  // block ids from position 0 on
};

// Causal attention of `heads` query heads over a paged cache with kv_heads heads (`heads` is a
// multiple of it):
//   out[row, head] = softmax(q . K^T / sqrt(head_dim)) . V over positions 0 … the row's own
// The row's own keys and values are in the cache already (kv_write). The cache is walked tile by
// tile from position 0 with an online softmax in f32 (Milakov and Gimelshein 2018), each (row,
// head) in the same order of operations whatever else is computed beside it: bits depend on
// neither batch, nor chunk, nor thread, nor which blocks hold the tokens.
struct Attention {
  std::span<const AttentionSequence> sequences;
  std::size_t heads = 0;
  io::DType dtype = io::DType::f32;  // of q and out: f32 or bf16
  std::size_t q_stride = 0;          // elements from row to row of q
  const void* q = nullptr;           // [rows, heads, head_dim], rotated
  KvLayout layout;
  const std::byte* cache = nullptr;  // of this layer
  void* out = nullptr;               // [rows, heads * head_dim]
};

// What attention needs beside its arguments, kept from call to call by its owner.
class AttentionScratch {
 public:
  AttentionScratch(const Cpu& device, std::size_t heads, const KvLayout& layout);

  // Rows of one sequence that one task computes together. No bit depends on it.
  std::size_t rows_per_task = 1;
  // One thread's share: queries, sums and output of rows_per_task * heads / kv_heads queries.
  std::size_t floats_per_thread = 0;
  HostBuffer buffer;
  struct Task {
    std::uint32_t sequence = 0;
    std::uint32_t first = 0;  // of the sequence's rows
    std::uint32_t rows = 0;
    std::uint32_t kv_head = 0;
  };
  std::vector<Task> tasks;
};

void attention(const Cpu& device, const Attention& args, AttentionScratch& scratch);

}  // namespace penstock::model
