#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

// The element types of GGUF tensors. Source: github.com/ggml-org/ggml, ggml.h (`ggml_type`),
// ggml-common.h (block layouts) and ggml-quants.c (dequantize_row_q4_0, …).
namespace penstock::io {

// `elements` consecutive values are stored as one block of `bytes`.
struct GgmlType {
  std::string name;            // "Q4_1"; "type 99" if unknown
  std::uint64_t elements = 0;  // 0 if unknown
  std::uint64_t bytes = 0;
};

GgmlType ggml_type(std::uint32_t id);

// Whether dequantize() takes it.
bool is_readable(std::uint32_t id);

// Blocks of a readable type to f32; `blocks` holds exactly the blocks of out.size() elements.
void dequantize(std::uint32_t id, std::span<const std::byte> blocks, std::span<float> out);

}  // namespace penstock::io
