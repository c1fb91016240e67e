#include <cuda_runtime_api.h>

#include <utility>

#include "comm/device/error.hpp"
#include "comm/device/stream.hpp"

namespace penstock::comm::device {
namespace {

cudaStream_t stream_of(void* handle) { return static_cast<cudaStream_t>(handle); }
cudaEvent_t event_of(void* handle) { return static_cast<cudaEvent_t>(handle); }

}  // namespace

Stream Stream::create(Priority priority) {
  int least = 0;
  int greatest = 0;  // the smaller number
  PENSTOCK_CUDA_CALL(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  cudaStream_t handle = nullptr;
  PENSTOCK_CUDA_CALL(cudaStreamCreateWithPriority(&handle, cudaStreamNonBlocking,
                                                  priority == Priority::urgent ? greatest : least));
  Stream stream;
  stream.handle_ = handle;
  return stream;
}

Stream& Stream::operator=(Stream&& other) noexcept {
  if (this != &other) {
    reset();
    handle_ = std::exchange(other.handle_, nullptr);
  }
  return *this;
}

void Stream::reset() noexcept {
  if (handle_ != nullptr) cudaStreamDestroy(stream_of(handle_));
  handle_ = nullptr;
}

void Stream::wait(const Event& event) const {
  PENSTOCK_CUDA_CALL(
      cudaStreamWaitEvent(stream_of(handle_), event_of(event.get()), cudaEventWaitDefault));
}

bool Stream::idle() const {
  return check_query(cudaStreamQuery(stream_of(handle_)), "cudaStreamQuery", __FILE__, __LINE__);
}

void Stream::synchronize() const { PENSTOCK_CUDA_CALL(cudaStreamSynchronize(stream_of(handle_))); }

Event Event::create(bool timing) {
  cudaEvent_t handle = nullptr;
  PENSTOCK_CUDA_CALL(
      cudaEventCreateWithFlags(&handle, timing ? cudaEventDefault : cudaEventDisableTiming));
  Event event;
  event.handle_ = handle;
  return event;
}

Event& Event::operator=(Event&& other) noexcept {
  if (this != &other) {
    reset();
    handle_ = std::exchange(other.handle_, nullptr);
  }
  return *this;
}

void Event::reset() noexcept {
  if (handle_ != nullptr) cudaEventDestroy(event_of(handle_));
  handle_ = nullptr;
}

void Event::record(void* stream) {
  PENSTOCK_CUDA_CALL(cudaEventRecord(event_of(handle_), stream_of(stream)));
}

bool Event::done() const {
  return check_query(cudaEventQuery(event_of(handle_)), "cudaEventQuery", __FILE__, __LINE__);
}

void Event::synchronize() const { PENSTOCK_CUDA_CALL(cudaEventSynchronize(event_of(handle_))); }

float elapsed_ms(const Event& from, const Event& to) {
  float milliseconds = 0.0F;
  PENSTOCK_CUDA_CALL(cudaEventElapsedTime(&milliseconds, event_of(from.get()), event_of(to.get())));
  return milliseconds;
}

}  // namespace penstock::comm::device
