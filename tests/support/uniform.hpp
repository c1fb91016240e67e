#pragma once

#include <cstdint>

namespace penstock::tests {

// Evenly spread over 0 to 1, the same in each run (splitmix64).
class Uniform {
 public:
  double operator()() {
    state_ += 0x9E3779B97F4A7C15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
  }

 private:
  std::uint64_t state_ = 1;
};

}  // namespace penstock::tests
