#include "model/ops/product_rows.hpp"

#include <algorithm>
#include <utility>

namespace penstock::model {
namespace {

std::size_t round_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

std::size_t product_row_bucket(std::size_t rows) {
  // Tensor cores compute 16 rows at least, in 64 or 128 at a time where there are many.
  for (const auto& [most, step] : {std::pair<std::size_t, std::size_t>{64, 16},
                                   {128, 32},
                                   {512, 64},
                                   {1024, 128},
                                   {kMostProductRows, 256}}) {
    if (rows <= most) return std::max(step, round_up(rows, step));
  }
  return kMostProductRows;
}

std::vector<std::size_t> product_row_buckets() {
  std::vector<std::size_t> buckets;
  for (std::size_t rows = 1; rows <= kMostProductRows; rows = buckets.back() + 1) {
    buckets.push_back(product_row_bucket(rows));
  }
  return buckets;
}

std::size_t gpu_padded_rows(std::size_t rows) {
  const std::size_t whole = rows / kMostProductRows * kMostProductRows;
  const std::size_t rest = rows - whole;
  const std::size_t padded = whole + (rest == 0 ? 0 : product_row_bucket(rest));
  return std::max(padded, round_up(rows, kProductTileRows));
}

}  // namespace penstock::model
