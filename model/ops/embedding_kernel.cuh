#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock::model {

// A block for each row; rows are `units` of type Unit long.
template <class Unit>
__device__ void gather_units(const Unit* table, std::size_t units, const std::int32_t* rows_of,
                             Unit* out) {
  const std::size_t row = simt::block_x();
  const Unit* from = table + static_cast<std::size_t>(rows_of[row]) * units;
  for (std::size_t i = simt::thread(); i < units; i += simt::threads()) {
    out[row * units + i] = from[i];
  }
}

}  // namespace penstock::model
