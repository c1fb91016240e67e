#pragma once

#include <cstddef>
#include <memory>

namespace penstock::comm {

// The calls of CUDA that a staged link makes, one function for one call, so that the link is tested
// without a GPU. Handles are cudaStream_t and cudaEvent_t. Calls happen on the calling thread's
// current GPU and throw device::DeviceError.
class StagingApi {
 public:
  virtual ~StagingApi() = default;

  virtual void* create_stream() = 0;  // ahead of the compute stream where both have work
  virtual void destroy_stream(void* stream) noexcept = 0;
  virtual void* create_event() = 0;
  virtual void destroy_event(void* event) noexcept = 0;
  virtual void record(void* event, void* stream) = 0;
  virtual void wait(void* stream, void* event) = 0;
  virtual bool done(void* event) = 0;

  virtual void* allocate_pinned(std::size_t size_bytes) = 0;
  virtual void free_pinned(void* data) noexcept = 0;
  // Between GPU memory and pinned memory, in the order of the stream; does not block.
  virtual void copy(void* to, const void* from, std::size_t size_bytes, void* stream) = 0;
};

// CUDA itself; null in a program that is built without.
std::unique_ptr<StagingApi> make_staging_api();

}  // namespace penstock::comm
