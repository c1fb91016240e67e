#include "comm/local_link.hpp"

#include <fmt/format.h>

#include <cstring>
#include <stdexcept>
#include <utility>

#include "comm/error.hpp"

namespace penstock::comm {

LocalSender::LocalSender(std::shared_ptr<LocalHub> hub, int member)
    : hub_(std::move(hub)), edge_(hub_->edges[static_cast<std::size_t>(member)]), member_(member) {}

LocalSender::~LocalSender() { abort(); }

// The buffers may vanish as soon as this returns.
void LocalSender::abort() noexcept {
  std::unique_lock lock(edge_.mutex);
  edge_.copied.wait(lock, [this] { return !edge_.copying; });
  edge_.posted.clear();
  edge_.sender_left = true;
}

Ticket LocalSender::send(std::span<const std::byte> bytes) {
  const std::lock_guard lock(edge_.mutex);
  if (edge_.receiver_left) throw_receiver_left();
  edge_.posted.push_back(bytes);
  return next_++;
}

bool LocalSender::done(Ticket ticket) {
  if (ticket >= next_) throw std::out_of_range(fmt::format("comm: no send has ticket {}", ticket));
  const std::lock_guard lock(edge_.mutex);
  if (ticket < edge_.completed) return true;
  if (edge_.receiver_left) throw_receiver_left();
  return false;
}

void LocalSender::throw_receiver_left() const {
  throw CommError(fmt::format("{} has left; {} cannot send to it", hub_->describe(member_ + 1),
                              hub_->describe(member_)));
}

LocalReceiver::LocalReceiver(std::shared_ptr<LocalHub> hub, int member)
    : hub_(std::move(hub)),
      edge_(hub_->edges[static_cast<std::size_t>(member - 1)]),
      member_(member) {}

LocalReceiver::~LocalReceiver() {
  const std::lock_guard lock(edge_.mutex);
  edge_.receiver_left = true;
}

Ticket LocalReceiver::receive(std::span<std::byte> bytes) {
  posted_.push_back(bytes);
  return completed_ + posted_.size() - 1;
}

bool LocalReceiver::done(Ticket ticket) {
  if (ticket >= completed_ + posted_.size()) {
    throw std::out_of_range(fmt::format("comm: no receive has ticket {}", ticket));
  }
  progress();
  if (ticket < completed_) return true;
  const std::lock_guard lock(edge_.mutex);
  if (edge_.sender_left) {
    throw CommError(fmt::format("{} has left; {} waits for data from it",
                                hub_->describe(member_ - 1), hub_->describe(member_)));
  }
  return false;
}

void LocalReceiver::progress() {
  while (!posted_.empty() && copy_next()) {
  }
}

bool LocalReceiver::copy_next() {
  std::span<const std::byte> from;
  const std::span<std::byte> to = posted_.front();
  {
    const std::lock_guard lock(edge_.mutex);
    if (edge_.posted.empty()) return false;
    from = edge_.posted.front();
    if (from.size() != to.size()) {
      throw CommError(fmt::format("{} sent {} bytes where {} expects {}",
                                  hub_->describe(member_ - 1), from.size(), hub_->describe(member_),
                                  to.size()));
    }
    edge_.copying = true;
  }
  // Without the mutex, so that a large copy does not hold up the sender's calls.
  if (!to.empty()) std::memcpy(to.data(), from.data(), to.size());
  {
    const std::lock_guard lock(edge_.mutex);
    edge_.posted.pop_front();
    ++edge_.completed;
    edge_.copying = false;
    edge_.copied.notify_one();
  }
  posted_.pop_front();
  ++completed_;
  return true;
}

}  // namespace penstock::comm
