#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "io/tensor_source.hpp"
#include "model/convert/output.hpp"

namespace penstock::model {

// One tensor of a source as row-major [rows, columns] f32; memory stays near kBlockElements.
class SourceRows {
 public:
  SourceRows(io::TensorSource& source, std::size_t tensor);

  // Everything, in the source's order.
  void copy(TensorSink& sink);

  // The rows of `heads` heads in the order transformers keeps them. llama.cpp's converter
  // interleaves the two halves of each head for its rotary embedding: its row 2 i + j of a head is
  // row i + j * head_dim / 2 here. Source: llama.cpp, conversion/llama.py, LlamaModel.permute.
  void copy_deinterleaved(std::int64_t heads, TensorSink& sink);

 private:
  // Elements [first, first + count); valid until the next call. Sources are read on multiples of
  // 256 elements, so that a row may begin inside what is read.
  std::span<const float> elements(std::uint64_t first, std::uint64_t count);

  io::TensorSource& source_;
  std::size_t tensor_ = 0;
  std::uint64_t total_ = 0;    // elements
  std::uint64_t columns_ = 1;  // 1: a vector
  std::uint64_t begin_ = 0;    // what buffer_ holds
  std::vector<float> buffer_;
};

}  // namespace penstock::model
