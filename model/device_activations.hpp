#pragma once

#include "comm/device/buffer.hpp"
#include "model/stage.hpp"

namespace penstock::model {

class DeviceActivations : public ActivationBuffer {
 public:
  explicit DeviceActivations(std::size_t bytes) : buffer_(bytes) {}
  std::span<std::byte> bytes() const override { return buffer_.bytes(); }

 private:
  comm::device::DeviceBuffer buffer_;
};

}  // namespace penstock::model
