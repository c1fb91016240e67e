#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/control.hpp"

namespace penstock::comm {

// Both ends of an edge move bytes in order, without tags: the n-th receive gets the n-th send,
// and both know its size. Neither call blocks; progress() moves what is under way. A buffer belongs
// to the link from the call until done() of its ticket. Messages may be larger than 2 GiB.
using Ticket = std::uint64_t;

class LinkSender {
 public:
  virtual ~LinkSender() = default;
  virtual Ticket send(std::span<const std::byte> bytes) = 0;
  virtual bool done(Ticket ticket) = 0;
  virtual void progress() = 0;
};

class LinkReceiver {
 public:
  virtual ~LinkReceiver() = default;
  virtual Ticket receive(std::span<std::byte> bytes) = 0;
  virtual bool done(Ticket ticket) = 0;
  virtual void progress() = 0;
};

// What one stage has of the transport: the control channel and the edges to its neighbours
// (null at the ends of the pipeline).
struct Endpoint {
  std::unique_ptr<Control> control;
  std::unique_ptr<LinkReceiver> previous;
  std::unique_ptr<LinkSender> next;
};

}  // namespace penstock::comm
