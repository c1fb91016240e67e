#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "comm/device/error.hpp"

namespace penstock::comm::device {

void check_cuda(int code, const char* call, const char* file, int line) {
  if (code == cudaSuccess) return;
  const auto error = static_cast<cudaError_t>(code);
  // What failed in the call alone must not come up again at the next one. An error of a kernel
  // stays: after it the process can do nothing on the GPU any more.
  cudaGetLastError();
  throw DeviceError(fmt::format("CUDA: {} ({}, {}; {}, {}:{})", cudaGetErrorString(error),
                                cudaGetErrorName(error), code, call, file, line));
}

bool check_query(int code, const char* call, const char* file, int line) {
  if (code != cudaErrorNotReady) {
    check_cuda(code, call, file, line);
    return true;
  }
  // NVIDIA's guide says that it is not kept as the last error, but versions have kept it; then the
  // next launch of this thread would be said to have failed. Any other error stays.
  if (cudaPeekAtLastError() == cudaErrorNotReady) cudaGetLastError();
  return false;
}

}  // namespace penstock::comm::device
