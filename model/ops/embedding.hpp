#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "model/ops/device.hpp"

namespace penstock::model {

// out[row] = table[rows_of[row]]: the embedding look-up, and the gathering of sampled rows.
// `table` is [any, row_bytes], `out` [rows_of.size(), row_bytes]; ids are not checked here.
void gather_rows(const Cpu& device, const std::byte* table, std::size_t row_bytes,
                 std::span<const std::int32_t> rows_of, std::byte* out);
void gather_rows(const Cuda& device, const std::byte* table, std::size_t row_bytes,
                 std::span<const std::int32_t> rows_of, std::byte* out);

}  // namespace penstock::model
