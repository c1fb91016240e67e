#include "io/gguf_types.hpp"

#include <fmt/format.h>

#include <cstring>

#include "io/dtype.hpp"

namespace penstock::io {
namespace {

enum Id : std::uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ8_0 = 8, kBF16 = 30 };

struct Row {
  std::uint32_t id;
  const char* name;
  std::uint16_t elements;
  std::uint16_t bytes;
};

constexpr Row kTypes[] = {
    {kF32, "F32", 1, 4},      {kF16, "F16", 1, 2},      {kQ4_0, "Q4_0", 32, 18},
    {kQ4_1, "Q4_1", 32, 20},  {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
    {kQ8_0, "Q8_0", 32, 34},  {9, "Q8_1", 32, 40},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},  {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},   {kBF16, "BF16", 1, 2},    {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},    {40, "NVFP4", 64, 36},
    {41, "Q1_0", 128, 18},
};

constexpr std::size_t kBlock = 32;  // elements of a Q4_0, Q4_1 or Q8_0 block

float load_f16(const std::byte* from) {
  std::uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return f16_to_f32(bits);
}

// Low nibbles are elements 0 to 15 of the block, high nibbles 16 to 31. The products are exact in
// f32 (11 by at most 8 bits), so a fused multiply-add gives the same bits as two operations.
void dequantize_q4(const std::byte* block, std::size_t header_bytes, float scale, int zero,
                   float minimum, float* out) {
  for (std::size_t i = 0; i < kBlock / 2; ++i) {
    const auto pair = std::to_integer<int>(block[header_bytes + i]);
    out[i] = scale * static_cast<float>((pair & 0xf) - zero) + minimum;
    out[i + kBlock / 2] = scale * static_cast<float>((pair >> 4) - zero) + minimum;
  }
}

}  // namespace

GgmlType ggml_type(std::uint32_t id) {
  for (const Row& row : kTypes) {
    if (row.id == id) return {row.name, row.elements, row.bytes};
  }
  return {fmt::format("type {}", id), 0, 0};
}

bool is_readable(std::uint32_t id) {
  return id == kF32 || id == kF16 || id == kBF16 || id == kQ4_0 || id == kQ4_1 || id == kQ8_0;
}

void dequantize(std::uint32_t id, std::span<const std::byte> blocks, std::span<float> out) {
  const std::byte* block = blocks.data();
  float* const end = out.data() + out.size();
  switch (id) {
    case kF32:
      return convert(block, DType::f32, out.data(), DType::f32, out.size());
    case kF16:
      return convert(block, DType::f16, out.data(), DType::f32, out.size());
    case kBF16:
      return convert(block, DType::bf16, out.data(), DType::f32, out.size());
    case kQ4_0:
      for (float* to = out.data(); to != end; to += kBlock, block += 18) {
        const float scale = load_f16(block);
        // Adding -0 changes no value; +0 would turn -0 into +0.
        dequantize_q4(block, 2, scale, 8, -0.0f, to);
      }
      return;
    case kQ4_1:
      for (float* to = out.data(); to != end; to += kBlock, block += 20) {
        dequantize_q4(block, 4, load_f16(block), 0, load_f16(block + 2), to);
      }
      return;
    case kQ8_0:
      for (float* to = out.data(); to != end; to += kBlock, block += 34) {
        const float scale = load_f16(block);
        for (std::size_t i = 0; i < kBlock; ++i) {
          to[i] = scale * static_cast<float>(static_cast<std::int8_t>(block[2 + i]));
        }
      }
      return;
    default:
      return;
  }
}

}  // namespace penstock::io
