#pragma once

#include <array>
#include <cstdint>

namespace penstock::model {

// Philox 4x32 with ten rounds. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as
// easy as 1, 2, 3", SC 2011; the constants are those of the Random123 library.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

// Uniform in [0, 1) with 53 bits, keyed by (seed, record, sample, position): the same on every
// layout.
double uniform(std::uint64_t seed, std::uint64_t record, std::uint32_t sample,
               std::uint32_t position);

}  // namespace penstock::model
