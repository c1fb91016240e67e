#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/link.hpp"
#include "comm/nccl_api.hpp"
#include "comm/wait.hpp"

namespace penstock::comm {

class NcclEdge;

// NCCL hands a non-blocking operation to the GPU in a thread of its own, and does not allow two
// threads to do so for one GPU, not even with different communicators ("Thread Safety" in its
// guide). So the edges of a rank take turns.
struct NcclTurn {
  NcclEdge* holder = nullptr;
};

enum class NcclOperation { send, receive };

// One end of an edge: a communicator of two ranks, a stream, and the operations on them in the
// order in which they were posted. An operation is
//   queued   until those before it have been handed over and the rank's turn is free;
//   issuing  while NCCL answers ncclInProgress: nothing may be put on the stream until it is done
//            ("ncclCommGetAsyncError" in its guide), no event either;
//   running  once the event behind it is on the stream, and until that event is reached.
// Used by one thread, whose current GPU is the communicator's.
class NcclEdge {
 public:
  // `name`: "edge from rank 2, host a to rank 3, host b". `rank`: 0 at the sending end, 1 at the
  // receiving one. `stall_timeout`: how long an operation may stay without any step forward.
  NcclEdge(std::shared_ptr<NcclApi> api, std::shared_ptr<NcclTurn> turn, std::string name, int rank,
           std::chrono::milliseconds stall_timeout);
  // Of what is left. Destroying the communicator is close()'s or NcclEdges::abort()'s.
  ~NcclEdge();
  NcclEdge(const NcclEdge&) = delete;
  NcclEdge& operator=(const NcclEdge&) = delete;

  // Makes the communicator with the other end, which calls it at the same time. Polls.
  void connect(const NcclId& id, std::chrono::milliseconds timeout);

  // All of these throw CommError, which names the edge, the operation and the time waited, when
  // NCCL or CUDA reports an error or the oldest operation stalls. The edge is unusable after it.
  // While another edge has the turn that this one needs, they move that edge too (and throw its
  // error), so that a rank that waits for one edge only is not left waiting.
  Ticket post(NcclOperation operation, void* data, std::size_t size_bytes);
  bool done(Ticket ticket);
  void progress();
  bool order_compute_after(Ticket ticket);

  void set_compute_stream(void* stream) { compute_stream_ = stream; }

  // Connected, everything that was posted is done, and nothing has failed.
  bool quiet() const { return usable_ && operations_.empty(); }
  // Finalizes the communicator of a quiet edge. Polls. False: the other end did not come or NCCL
  // failed. The communicator is still there, the edge is unusable.
  bool finalize(std::chrono::milliseconds timeout) noexcept;

  // The communicator, to be destroyed or aborted; null if there is none (any more). The edge is
  // then unusable.
  void* release_communicator() noexcept;
  // The GPU may still work on the stream: it and its events are left to the end of the process.
  void leave_stream() noexcept;

  const std::string& name() const { return name_; }

 private:
  enum class State { queued, issuing, running };
  struct Operation {
    NcclOperation kind;
    void* data;
    std::size_t size_bytes;
    Ticket ticket;
    Clock::time_point posted;
    State state = State::queued;
    void* ready = nullptr;     // of a send: the event on the compute stream it starts after
    void* complete = nullptr;  // once running: the event behind it
  };

  NcclResult poll();
  bool settle();
  void give_turn();
  bool advance();
  void hand_over(Operation& operation);
  void mark_running(Operation& operation);
  void* take_event();
  void check_usable() const;
  void check_stall();
  std::string describe(const Operation& operation) const;
  [[noreturn]] void fail(const std::string& what);
  [[noreturn]] void fail_nccl(std::string_view call, NcclResult result);
  template <typename Body>
  auto guarded(Body body);

  std::shared_ptr<NcclApi> api_;
  std::shared_ptr<NcclTurn> turn_;
  std::string name_;
  int rank_;
  std::chrono::milliseconds stall_timeout_;
  void* communicator_ = nullptr;
  void* stream_ = nullptr;
  std::optional<void*> compute_stream_;
  std::vector<void*> events_;         // not in use
  std::deque<Operation> operations_;  // oldest first; first those handed over, then those queued
  std::size_t handed_over_ = 0;
  Ticket first_ = 0;             // ticket of the oldest
  Clock::time_point last_step_;  // when anything last went forward
  bool usable_ = false;
};

}  // namespace penstock::comm
