#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <vector>

#include "comm/control.hpp"

namespace penstock::comm {

// Both ends of an edge move bytes in order, without tags: the n-th receive gets the n-th send,
// and both know its size. Neither call blocks; progress() moves what is under way. A buffer belongs
// to the link from the call until done() of its ticket. Messages may be larger than 2 GiB.
using Ticket = std::uint64_t;

// What both ends have in common.
//
// Device links move GPU memory and order themselves against the work of one compute stream; host
// links move host memory and ignore the stream. A caller written for device links is right with
// both.
class LinkEnd {
 public:
  virtual ~LinkEnd() = default;
  virtual bool done(Ticket ticket) = 0;
  virtual void progress() = 0;

  // The stream (a cudaStream_t; null is CUDA's default stream) that computes what is sent and uses
  // what is received. A send starts after everything that was on it when send() was called. A
  // receive does not wait for it: its buffer must not be in use by work that is still to be done,
  // else no receive would overlap with computing. While the stream is captured into a graph, no
  // call of a link may be made: CUDA forbids what they ask.
  // The stream must live for as long as send() or order_compute_after() is called, or until another
  // one is set. No other call uses it, nor does the end of the link: what is under way by then is
  // ordered by events.
  virtual void set_compute_stream(void* /*stream*/) {}

  // Makes what is put on the compute stream from now on wait for this transfer: work that uses what
  // was received, or that overwrites what was sent. False: not possible yet; ask again. Never
  // blocks. Host links: true when it is done.
  virtual bool order_compute_after(Ticket ticket) { return done(ticket); }

  // From now on so many messages at least may be under way at once before one waits for a buffer of
  // the link's own; most links have none. Throws CommError.
  virtual void make_room(std::size_t /*messages*/) {}

  // Gives up all that is under way and all that comes, so that memory can be freed without waiting
  // for the peer. Takes a bounded time. No call but the destructor may follow.
  virtual void abort() noexcept {}
};

class LinkSender : public LinkEnd {
 public:
  virtual Ticket send(std::span<const std::byte> bytes) = 0;
};

class LinkReceiver : public LinkEnd {
 public:
  virtual Ticket receive(std::span<std::byte> bytes) = 0;
};

// How long a member may be silent, or all may stand still, unless the user says otherwise.
inline constexpr std::chrono::seconds kDefaultWatchdog{120};

// What one stage has of the transport: the control channel and the edges to its neighbours
// (null at the ends of the pipeline), and how long it waits for signs of life. Where several equal
// pipelines work side by side, there are two more channels.
struct Endpoint {
  std::unique_ptr<Control> control;  // among the members of this pipeline
  std::unique_ptr<LinkReceiver> previous;
  std::unique_ptr<LinkSender> next;
  std::chrono::milliseconds watchdog = kDefaultWatchdog;

  int pipeline = 0;
  int pipelines = 1;
  // Among the members of all pipelines, one pipeline's after the other's; null if there is one
  // pipeline.
  std::unique_ptr<Control> everyone;
  // Among the first members of all pipelines; null on others, and if there is one pipeline.
  std::unique_ptr<Control> firsts;

  // For what all members of all pipelines do together.
  Control& all() { return everyone ? *everyone : *control; }
  // Control::beat() on all channels.
  void beat(std::uint64_t done) {
    for (Control* channel : {control.get(), everyone.get(), firsts.get()}) {
      if (channel != nullptr) channel->beat(done);
    }
  }
};

// Aborts the links of an endpoint when an exception ends its scope. Belongs behind whatever owns
// the buffers: a peer, or MPI, could still touch them, and freeing GPU memory waits for all kernels
// of the GPU, also for a receive whose peer will never send.
class AbortOnException {
 public:
  explicit AbortOnException(Endpoint& endpoint)
      : endpoint_(endpoint), exceptions_(std::uncaught_exceptions()) {}
  ~AbortOnException() {
    if (std::uncaught_exceptions() == exceptions_) return;
    if (endpoint_.next) endpoint_.next->abort();
    if (endpoint_.previous) endpoint_.previous->abort();
  }
  AbortOnException(const AbortOnException&) = delete;
  AbortOnException& operator=(const AbortOnException&) = delete;

 private:
  Endpoint& endpoint_;
  int exceptions_;
};

}  // namespace penstock::comm
