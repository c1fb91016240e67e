#include "model/ops/product_proof_cpu.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

namespace penstock::model {
namespace {

constexpr std::size_t kDistinctRows = 16;

// A number with a random significand, sign and an exponent of -8 … -1, for each index.
float number(std::uint64_t index) {
  std::uint64_t hash = (index + 1) * 0x9E3779B97F4A7C15u;  // SplitMix64 (Steele et al. 2014)
  hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9u;
  hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EBu;
  const auto bits = static_cast<std::uint32_t>(hash >> 32);
  const std::uint32_t exponent = 126 - ((bits >> 23) & 7);
  return std::bit_cast<float>((bits & 0x807FFFFFu) | (exponent << 23));
}

std::vector<std::size_t> all_batches(std::size_t max_rows) {
  std::vector<std::size_t> batches;
  const std::size_t largest = row_bucket(std::clamp(max_rows, kDistinctRows, kMaxCallRows));
  for (std::size_t rows = 1; rows < largest; rows = row_bucket(rows + 1)) batches.push_back(rows);
  batches.push_back(largest);
  return batches;
}

}  // namespace

ProductProof::ProductProof(const Cpu& device, const LinearShape& shape, bool reversed)
    : shape_(shape),
      batches_(all_batches(shape.max_rows)),
      weight_(shape.out_features * shape.in_features * io::size_of(shape.dtype), device.threads,
              "the check of a product"),
      bias_(shape.out_features * sizeof(float), 1, "the check of a product"),
      // Each of the first rows is also read as if it were the first of a whole tile.
      in_((product_padded_rows(batches_.back()) + kTileRows) * shape.in_features *
              io::size_of(shape.dtype),
          1, "the check of a product"),
      out_(product_padded_rows(batches_.back()) * shape.out_features * io::size_of(shape.out_dtype),
           device.threads, "the check of a product") {
  const std::size_t width = shape.in_features;
  const std::size_t row_bytes = width * io::size_of(shape.dtype);
  // A row whose second half repeats the first times `factor`; the last of an odd number is zero.
  const auto put = [&](std::byte* to, std::uint64_t first, float factor) {
    const std::size_t half = width / 2;
    const auto at = [&](std::size_t i) { return reversed ? width - 1 - i : i; };
    std::vector<float> values(width);
    for (std::size_t i = 0; i < half; ++i) {
      const float value = number(first + i);
      values[at(i)] = value;
      values[at(half + i)] = value * factor;
    }
    io::convert(values.data(), io::DType::f32, to, shape.dtype, width);
  };
  const auto columns = static_cast<std::ptrdiff_t>(shape.out_features);
#pragma omp parallel for schedule(static) num_threads(device.threads)
  for (std::ptrdiff_t i = 0; i < columns; ++i) {
    const auto column = static_cast<std::size_t>(i);
    put(weight_.data() + column * row_bytes, column * width, 1.0f);
  }
  for (std::size_t r = 0; r < batches_.back(); ++r) {
    put(in_.data() + r * row_bytes, ~std::uint64_t{0} / 2 + r % kDistinctRows * (width / 2),
        -(1.0f + 1.0f / 64));
  }
}

const std::byte* ProductProof::row(std::size_t index) const {
  return in_.data() + index * shape_.in_features * io::size_of(shape_.dtype);
}

std::vector<std::byte> ProductProof::rows_alone(Product& product) const {
  const Product::Weight weight =
      product.pack(weight_.data(), shape_.bias ? bias_.as<float>() : nullptr);
  const std::size_t row_bytes = shape_.out_features * io::size_of(shape_.out_dtype);
  std::vector<std::byte> rows(kDistinctRows * row_bytes);
  for (std::size_t r = 0; r < kDistinctRows; ++r) {
    product.apply(weight, 1, row(r), out_.data());
    std::memcpy(rows.data() + r * row_bytes, out_.data(), row_bytes);
  }
  return rows;
}

bool ProductProof::matches(Product& product, const std::vector<std::byte>& expected) const {
  const Product::Weight weight =
      product.pack(weight_.data(), shape_.bias ? bias_.as<float>() : nullptr);
  const std::size_t row_bytes = shape_.out_features * io::size_of(shape_.out_dtype);
  for (const std::size_t batch : batches_) {
    product.apply(weight, batch, in_.data(), out_.data());
    if (product.mode().tile_rows == 0 && !product.batch_reduce()) return false;
    for (std::size_t r = 0; r < batch; ++r) {
      const std::byte* alone = expected.data() + r % kDistinctRows * row_bytes;
      if (std::memcmp(out_.data() + r * row_bytes, alone, row_bytes) != 0) return false;
    }
  }
  return true;
}

}  // namespace penstock::model
