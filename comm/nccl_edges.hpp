#pragma once

#include <chrono>
#include <memory>

#include "comm/nccl_edge.hpp"

namespace penstock::comm {

// The two edges of a rank, which end together. The destructor
// - finalizes and destroys the communicators, with the other ends, when all that was posted is
// done;
// - aborts them when an exception unwinds, when something is under way, or when the other end does
//   not come within `close_timeout`.
class NcclEdges {
 public:
  NcclEdges(std::shared_ptr<NcclApi> api, std::chrono::milliseconds close_timeout);
  ~NcclEdges();
  NcclEdges(const NcclEdges&) = delete;
  NcclEdges& operator=(const NcclEdges&) = delete;

  // Both at once: freeing one communicator waits for all kernels of the GPU, also those of the
  // other one. Takes at most `close_timeout`: ncclCommAbort wants all ranks to call it, and an
  // error has to be told even if they do not.
  void abort() noexcept;

  const std::shared_ptr<NcclTurn>& turn() const { return turn_; }

  std::unique_ptr<NcclEdge> previous;  // null at the ends of the pipeline
  std::unique_ptr<NcclEdge> next;

 private:
  void end() noexcept;
  bool destroy(NcclEdge& edge) noexcept;

  std::shared_ptr<NcclApi> api_;
  std::shared_ptr<NcclTurn> turn_ = std::make_shared<NcclTurn>();
  std::chrono::milliseconds close_timeout_;
  int exceptions_;  // under way when this object was made
};

}  // namespace penstock::comm
