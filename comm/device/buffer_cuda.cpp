#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "comm/device/buffer.hpp"
#include "comm/device/error.hpp"

namespace penstock::comm::device {
namespace {

double gib(std::size_t bytes) { return static_cast<double>(bytes) / (1U << 30U); }

}  // namespace

void* GpuMemoryPool::allocate(std::size_t size_bytes) {
  void* data = nullptr;
  const cudaError_t code = cudaMalloc(&data, size_bytes);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    PENSTOCK_CUDA_CALL(cudaMemGetInfo(&free_bytes, &total_bytes));
    throw DeviceError(
        fmt::format("the GPU has no {:.2f} GiB ({} bytes): {:.2f} of {:.2f} GiB are free",
                    gib(size_bytes), size_bytes, gib(free_bytes), gib(total_bytes)));
  }
  check_cuda(code, "cudaMalloc", __FILE__, __LINE__);
  return data;
}

void GpuMemoryPool::free(void* data) noexcept { cudaFree(data); }

void* PinnedMemoryPool::allocate(std::size_t size_bytes) {
  void* data = nullptr;
  const cudaError_t code = cudaHostAlloc(&data, size_bytes, cudaHostAllocPortable);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw DeviceError(fmt::format(
        "there is no {:.2f} GiB ({} bytes) of host memory that can be pinned for the GPU; is the "
        "job's memory limit too low?",
        gib(size_bytes), size_bytes));
  }
  check_cuda(code, "cudaHostAlloc", __FILE__, __LINE__);
  return data;
}

void PinnedMemoryPool::free(void* data) noexcept { cudaFreeHost(data); }

void copy_async(void* to, const void* from, std::size_t size_bytes, void* stream) {
  if (size_bytes == 0) return;
  PENSTOCK_CUDA_CALL(
      cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDefault, static_cast<cudaStream_t>(stream)));
}

void zero_async(void* to, std::size_t size_bytes, void* stream) {
  if (size_bytes == 0) return;
  PENSTOCK_CUDA_CALL(cudaMemsetAsync(to, 0, size_bytes, static_cast<cudaStream_t>(stream)));
}

}  // namespace penstock::comm::device
