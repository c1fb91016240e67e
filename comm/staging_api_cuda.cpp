#include <cuda_runtime_api.h>

#include "comm/device/buffer.hpp"
#include "comm/device/error.hpp"
#include "comm/staging_api.hpp"
#include "comm/stream_api_cuda.hpp"

namespace penstock::comm {
namespace {

class Staging final : public CudaStreams<StagingApi> {
 public:
  void* allocate_pinned(std::size_t size_bytes) override {
    return device::PinnedMemoryPool::allocate(size_bytes);
  }
  void free_pinned(void* data) noexcept override { device::PinnedMemoryPool::free(data); }
  void synchronize(void* stream) noexcept override { cudaStreamSynchronize(stream_of(stream)); }
  void copy(void* to, const void* from, std::size_t size_bytes, void* stream) override {
    PENSTOCK_CUDA_CALL(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDefault, stream_of(stream)));
  }
};

}  // namespace

std::unique_ptr<StagingApi> make_staging_api() { return std::make_unique<Staging>(); }

}  // namespace penstock::comm
