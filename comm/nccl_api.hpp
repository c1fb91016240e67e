#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>

#include "comm/stream_api.hpp"

namespace penstock::comm {

// ncclResult_t.
enum class NcclResult {
  success = 0,
  unhandled_cuda_error = 1,
  system_error = 2,
  internal_error = 3,
  invalid_argument = 4,
  invalid_usage = 5,
  remote_error = 6,
  in_progress = 7,
};

using NcclId = std::array<char, 128>;  // ncclUniqueId

// The calls of NCCL and CUDA that its link makes; see StreamApi. Communicators are ncclComm_t.
class NcclApi : public StreamApi {
 public:
  virtual NcclResult get_version(int& version) = 0;  // 10000 × major + 100 × minor + patch
  virtual NcclResult get_unique_id(NcclId& id) = 0;
  // ncclCommInitRankConfig with blocking = 0: sets `communicator` at once, unless it fails.
  virtual NcclResult init(void*& communicator, int ranks, const NcclId& id, int rank) = 0;
  virtual NcclResult get_async_error(void* communicator, NcclResult& state) = 0;
  virtual NcclResult send(const void* data, std::size_t size_bytes, int peer, void* communicator,
                          void* stream) = 0;
  virtual NcclResult receive(void* data, std::size_t size_bytes, int peer, void* communicator,
                             void* stream) = 0;
  virtual NcclResult group_start() = 0;
  virtual NcclResult group_end() = 0;
  virtual NcclResult abort(void* communicator) = 0;
  virtual NcclResult finalize(void* communicator) = 0;
  virtual NcclResult destroy(void* communicator) = 0;
  virtual std::string get_error_string(NcclResult result) = 0;
  virtual std::string get_last_error(void* communicator) = 0;  // "" if there is none

  virtual int current_gpu() = 0;
  virtual void set_current_gpu(int gpu) = 0;  // of the calling thread

  // For the warm-up.
  virtual void* allocate(std::size_t size_bytes) = 0;
  virtual void free(void* data) noexcept = 0;
  virtual void copy(void* to, const void* from,
                    std::size_t size_bytes) = 0;  // blocks until it is there
};

// NCCL and CUDA themselves; null in a program that is built without.
std::unique_ptr<NcclApi> make_nccl_api();

// "2.28.9" of a version number.
std::string nccl_version_text(int version);

}  // namespace penstock::comm
