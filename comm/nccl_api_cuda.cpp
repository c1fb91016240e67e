#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>

#include "comm/device/error.hpp"
#include "comm/nccl_api.hpp"
#include "comm/stream_api_cuda.hpp"

namespace penstock::comm {
namespace {

static_assert(static_cast<int>(NcclResult::success) == ncclSuccess);
static_assert(static_cast<int>(NcclResult::unhandled_cuda_error) == ncclUnhandledCudaError);
static_assert(static_cast<int>(NcclResult::system_error) == ncclSystemError);
static_assert(static_cast<int>(NcclResult::internal_error) == ncclInternalError);
static_assert(static_cast<int>(NcclResult::invalid_argument) == ncclInvalidArgument);
static_assert(static_cast<int>(NcclResult::invalid_usage) == ncclInvalidUsage);
static_assert(static_cast<int>(NcclResult::remote_error) == ncclRemoteError);
static_assert(static_cast<int>(NcclResult::in_progress) == ncclInProgress);
static_assert(sizeof(NcclId) == sizeof(ncclUniqueId));

NcclResult result_of(ncclResult_t result) { return static_cast<NcclResult>(result); }
ncclComm_t communicator_of(void* handle) { return static_cast<ncclComm_t>(handle); }

class Nccl final : public CudaStreams<NcclApi> {
 public:
  NcclResult get_version(int& version) override { return result_of(ncclGetVersion(&version)); }

  NcclResult get_unique_id(NcclId& id) override {
    ncclUniqueId unique_id;
    const ncclResult_t result = ncclGetUniqueId(&unique_id);
    if (result == ncclSuccess) std::memcpy(id.data(), unique_id.internal, id.size());
    return result_of(result);
  }

  NcclResult init(void*& communicator, int ranks, const NcclId& id, int rank) override {
    ncclUniqueId unique_id;
    std::memcpy(unique_id.internal, id.data(), id.size());
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t handle = nullptr;
    const ncclResult_t result = ncclCommInitRankConfig(&handle, ranks, unique_id, rank, &config);
    communicator = handle;
    return result_of(result);
  }

  NcclResult get_async_error(void* communicator, NcclResult& state) override {
    ncclResult_t asynchronous = ncclSuccess;
    const ncclResult_t result = ncclCommGetAsyncError(communicator_of(communicator), &asynchronous);
    state = result_of(asynchronous);
    return result_of(result);
  }

  NcclResult send(const void* data, std::size_t size_bytes, int peer, void* communicator,
                  void* stream) override {
    return result_of(ncclSend(data, size_bytes, ncclInt8, peer, communicator_of(communicator),
                              stream_of(stream)));
  }

  NcclResult receive(void* data, std::size_t size_bytes, int peer, void* communicator,
                     void* stream) override {
    return result_of(ncclRecv(data, size_bytes, ncclInt8, peer, communicator_of(communicator),
                              stream_of(stream)));
  }

  NcclResult group_start() override { return result_of(ncclGroupStart()); }
  NcclResult group_end() override { return result_of(ncclGroupEnd()); }
  NcclResult abort(void* communicator) override {
    return result_of(ncclCommAbort(communicator_of(communicator)));
  }
  NcclResult finalize(void* communicator) override {
    return result_of(ncclCommFinalize(communicator_of(communicator)));
  }
  NcclResult destroy(void* communicator) override {
    return result_of(ncclCommDestroy(communicator_of(communicator)));
  }

  std::string get_error_string(NcclResult result) override {
    return ncclGetErrorString(static_cast<ncclResult_t>(result));
  }
  std::string get_last_error(void* communicator) override {
    const char* text = ncclGetLastError(communicator_of(communicator));
    return text == nullptr ? "" : text;
  }

  int current_gpu() override {
    int gpu = 0;
    PENSTOCK_CUDA_CALL(cudaGetDevice(&gpu));
    return gpu;
  }
  void set_current_gpu(int gpu) override { PENSTOCK_CUDA_CALL(cudaSetDevice(gpu)); }

  void* allocate(std::size_t size_bytes) override {
    void* data = nullptr;
    PENSTOCK_CUDA_CALL(cudaMalloc(&data, size_bytes));
    return data;
  }
  void free(void* data) noexcept override { cudaFree(data); }
  void copy(void* to, const void* from, std::size_t size_bytes) override {
    PENSTOCK_CUDA_CALL(cudaMemcpy(to, from, size_bytes, cudaMemcpyDefault));
    // From pageable memory it returns when the bytes are in a staging buffer, and the link's stream
    // does not wait for the default one.
    PENSTOCK_CUDA_CALL(cudaStreamSynchronize(nullptr));
  }
};

}  // namespace

std::unique_ptr<NcclApi> make_nccl_api() { return std::make_unique<Nccl>(); }

}  // namespace penstock::comm
