#pragma once

#include <cstddef>
#include <vector>

namespace penstock::model {

// Rows of one call of a matrix product on a GPU at most; more rows are several calls.
inline constexpr std::size_t kMostProductRows = 2048;

// Numbers of rows for which products are prepared: `rows`, 1 … kMostProductRows, rounded up so that
// few serve all steps and little is computed in vain.
std::size_t product_row_bucket(std::size_t rows);
// All of them.
std::vector<std::size_t> product_row_buckets();
// Rows that calls for `rows` rows, any number, read and write, also in calls of `tile_rows` rows.
std::size_t gpu_padded_rows(std::size_t rows);
inline constexpr std::size_t kProductTileRows = 64;

}  // namespace penstock::model
