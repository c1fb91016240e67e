#pragma once

#include <cstdint>

#include "model/error.hpp"

namespace penstock::model {

// Puts pieces of memory one behind the other, each at a multiple of `alignment`. ModelError when
// that is more than 63 bits can count.
class MemoryPlaces {
 public:
  explicit MemoryPlaces(std::uint64_t alignment) : alignment_(alignment) {}

  // Where `count` things of `each` bytes go.
  std::uint64_t add(std::uint64_t count, std::uint64_t each) {
    const std::uint64_t place = end_;
    std::uint64_t bytes = 0;
    if (__builtin_mul_overflow(count, each, &bytes) ||
        __builtin_add_overflow(bytes, place + alignment_ - 1, &bytes) ||
        bytes > static_cast<std::uint64_t>(INT64_MAX)) {
      throw ModelError("the model's sizes, or those of its steps, are more than memory can have");
    }
    end_ = bytes / alignment_ * alignment_;
    return place;
  }
  std::uint64_t end() const { return end_; }

 private:
  std::uint64_t alignment_;
  std::uint64_t end_ = 0;
};

// cudaMalloc's alignment, which products rely on.
inline constexpr std::uint64_t kGpuAlignment = 256;

}  // namespace penstock::model
