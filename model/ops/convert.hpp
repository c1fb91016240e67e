#pragma once

#include <cstddef>
#include <cstdint>

namespace penstock::model {

// bf16 to f32 and back (nearest, ties to even), in the calling thread.
void widen(const std::uint16_t* from, std::size_t count, float* to);
void narrow(const float* from, std::size_t count, std::uint16_t* to);

}  // namespace penstock::model
