#pragma once

namespace penstock::comm {

// The calls of CUDA that order the work of links, one function for one call, so that links are
// tested without a GPU. Handles are cudaStream_t and cudaEvent_t. Calls happen on the calling
// thread's current GPU and throw device::DeviceError.
class StreamApi {
 public:
  virtual ~StreamApi() = default;

  virtual void* create_stream() = 0;  // ahead of the compute stream where both have work
  virtual void destroy_stream(void* stream) noexcept = 0;
  virtual void* create_event() = 0;
  virtual void destroy_event(void* event) noexcept = 0;
  virtual void record(void* event, void* stream) = 0;
  virtual void wait(void* stream, void* event) = 0;
  virtual bool done(void* event) = 0;
};

}  // namespace penstock::comm
