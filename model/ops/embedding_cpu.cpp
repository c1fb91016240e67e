#include <cstring>

#include "model/ops/embedding.hpp"

namespace penstock::model {

void gather_rows(const Cpu& device, const std::byte* table, std::size_t row_bytes,
                 std::span<const std::int32_t> rows_of, std::byte* out) {
  const auto rows = static_cast<std::ptrdiff_t>(rows_of.size());
#pragma omp parallel for schedule(static) num_threads(device.threads) if (rows > 64)
  for (std::ptrdiff_t row = 0; row < rows; ++row) {
    const auto to = static_cast<std::size_t>(row);
    std::memcpy(out + to * row_bytes, table + static_cast<std::size_t>(rows_of[to]) * row_bytes,
                row_bytes);
  }
}

}  // namespace penstock::model
