#pragma once

#include <vector>

#include "model/stage.hpp"

namespace penstock::model {

// Ordinary memory, for stages that never look at it.
class HostBytes : public ActivationBuffer {
 public:
  explicit HostBytes(std::size_t size_bytes) : bytes_(size_bytes) {}
  std::span<std::byte> bytes() const override { return bytes_; }

 private:
  mutable std::vector<std::byte> bytes_;
};

}  // namespace penstock::model
