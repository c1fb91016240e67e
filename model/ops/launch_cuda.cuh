#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "comm/device/error.hpp"
#include "model/ops/device.hpp"

namespace penstock::model {

// Launches kernel<<<grid, threads, shared_bytes>>> on the device's stream.
template <class... Parameters, class... Arguments>
void launch(const Cuda& device, void (*kernel)(Parameters...), dim3 grid, unsigned threads,
            std::size_t shared_bytes, Arguments... arguments) {
  kernel<<<grid, threads, shared_bytes, static_cast<cudaStream_t>(device.stream)>>>(arguments...);
  PENSTOCK_CUDA_CALL(cudaGetLastError());
}

// A thread for each of `count` > 0 things, along x.
inline dim3 grid_for(std::size_t count, unsigned threads) {
  return dim3(static_cast<unsigned>((count + threads - 1) / threads));
}

inline bool aligned16(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

inline unsigned device_attribute(const Cuda& device, cudaDeviceAttr attribute) {
  int value = 0;
  PENSTOCK_CUDA_CALL(cudaDeviceGetAttribute(&value, attribute, device.gpu));
  return static_cast<unsigned>(value);
}

}  // namespace penstock::model
