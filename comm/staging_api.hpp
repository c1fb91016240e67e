#pragma once

#include <cstddef>
#include <memory>

#include "comm/stream_api.hpp"

namespace penstock::comm {

// The calls of CUDA that a staged link makes; see StreamApi.
class StagingApi : public StreamApi {
 public:
  virtual void* allocate_pinned(std::size_t size_bytes) = 0;
  virtual void free_pinned(void* data) noexcept = 0;
  virtual void synchronize(void* stream) noexcept = 0;  // blocks
  // Between GPU memory and pinned memory, in the order of the stream; does not block.
  virtual void copy(void* to, const void* from, std::size_t size_bytes, void* stream) = 0;
};

// CUDA itself; null in a program that is built without.
std::unique_ptr<StagingApi> make_staging_api();

}  // namespace penstock::comm
