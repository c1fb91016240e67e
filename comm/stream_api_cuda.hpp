#pragma once

#include <cuda_runtime_api.h>

#include "comm/device/error.hpp"
#include "comm/stream_api.hpp"

namespace penstock::comm {

inline cudaStream_t stream_of(void* handle) { return static_cast<cudaStream_t>(handle); }
inline cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

// StreamApi's part of an Api that is derived from it, by CUDA itself.
template <class Api>
class CudaStreams : public Api {
 public:
  void* create_stream() override {
    int least = 0;
    int greatest = 0;
    PENSTOCK_CUDA_CALL(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    cudaStream_t stream = nullptr;
    PENSTOCK_CUDA_CALL(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
    return stream;
  }
  void destroy_stream(void* stream) noexcept override { cudaStreamDestroy(stream_of(stream)); }

  void* create_event() override {
    cudaEvent_t event = nullptr;
    PENSTOCK_CUDA_CALL(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
  }
  void destroy_event(void* event) noexcept override { cudaEventDestroy(event_of(event)); }
  void record(void* event, void* stream) override {
    PENSTOCK_CUDA_CALL(cudaEventRecord(event_of(event), stream_of(stream)));
  }
  void wait(void* stream, void* event) override {
    PENSTOCK_CUDA_CALL(
        cudaStreamWaitEvent(stream_of(stream), event_of(event), cudaEventWaitDefault));
  }
  bool done(void* event) override {
    return device::check_query(cudaEventQuery(event_of(event)), "cudaEventQuery", __FILE__,
                               __LINE__);
  }
};

}  // namespace penstock::comm
