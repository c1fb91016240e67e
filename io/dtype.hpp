#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock::io {

// The element types of stored and computed tensors. All little-endian.
enum class DType : std::uint8_t { f32, f16, bf16 };

std::size_t size_of(DType dtype);         // bytes
std::string_view to_string(DType dtype);  // "f32", "f16", "bf16"
std::optional<DType> parse_dtype(std::string_view name);

// Scalar conversions: round to nearest, ties to even; NaN stays NaN, overflow becomes infinity.
float bf16_to_f32(std::uint16_t bits);
std::uint16_t f32_to_bf16(float value);
float f16_to_f32(std::uint16_t bits);
std::uint16_t f32_to_f16(float value);

// Converts `count` elements; `from` and `to` must not overlap. Equal types are copied bit by bit.
void convert(const void* from, DType from_type, void* to, DType to_type, std::size_t count);

}  // namespace penstock::io
