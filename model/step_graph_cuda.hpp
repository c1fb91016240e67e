#pragma once

#include <functional>
#include <utility>

#include "comm/device/stream.hpp"

namespace penstock::model {

// The work that some calls put on a stream, to be put there again by one call. Move-only. One that
// is destroyed while the GPU still runs it is freed when that is done (driver API,
// cuGraphExecDestroy).
class StepGraph {
 public:
  // `body` only puts work on the stream, none of which is done now. What it throws is passed on,
  // and the stream takes work as before.
  static StepGraph capture(const comm::device::Stream& stream, const std::function<void()>& body);
  ~StepGraph() { reset(); }
  StepGraph(StepGraph&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  StepGraph& operator=(StepGraph&& other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }

  void launch(const comm::device::Stream& stream) const;

 private:
  explicit StepGraph(void* handle) : handle_(handle) {}
  void reset() noexcept;
  void* handle_ = nullptr;  // a cudaGraphExec_t
};

}  // namespace penstock::model
