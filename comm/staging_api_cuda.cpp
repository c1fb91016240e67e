#include <cuda_runtime_api.h>

#include "comm/device/error.hpp"
#include "comm/staging_api.hpp"
#include "comm/stream_api_cuda.hpp"

namespace penstock::comm {
namespace {

class Staging final : public CudaStreams<StagingApi> {
 public:
  void* allocate_pinned(std::size_t size_bytes) override {
    void* data = nullptr;
    PENSTOCK_CUDA_CALL(cudaHostAlloc(&data, size_bytes, cudaHostAllocDefault));
    return data;
  }
  void free_pinned(void* data) noexcept override { cudaFreeHost(data); }
  void copy(void* to, const void* from, std::size_t size_bytes, void* stream) override {
    PENSTOCK_CUDA_CALL(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDefault, stream_of(stream)));
  }
};

}  // namespace

std::unique_ptr<StagingApi> make_staging_api() { return std::make_unique<Staging>(); }

}  // namespace penstock::comm
