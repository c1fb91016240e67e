#include "comm/staged_link.hpp"

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

#include "comm/device/error.hpp"
#include "comm/error.hpp"

namespace penstock::comm {

template <typename Body>
auto Staging::guarded(Body body) {
  try {
    return body();
  } catch (const device::DeviceError& e) {
    usable_ = false;
    throw CommError(fmt::format("{}: {}", plan_.name, e.what()));
  }
}

Staging::Staging(StagingPlan plan) : plan_(std::move(plan)) {
  try {
    guarded([&] { stream_ = plan_.api->create_stream(); });
    make_buffers(plan_.buffers);
  } catch (...) {
    release();
    throw;
  }
}

Staging::~Staging() { release(); }

void Staging::make_buffers(std::size_t buffers) {
  guarded([&] {
    while (buffers_.size() < buffers) {
      StagingBuffer& buffer = buffers_.emplace_back();
      buffer.data = plan_.api->allocate_pinned(plan_.buffer_bytes);
      buffer.copied = plan_.api->create_event();
      free_.push_back(&buffer);
    }
  });
}

void Staging::abort() noexcept {
  usable_ = false;
  // Copies wait for what the compute stream computes, never for a peer.
  if (stream_ != nullptr) plan_.api->synchronize(stream_);
}

void Staging::release() noexcept {
  abort();
  for (const StagingBuffer& buffer : buffers_) {
    if (buffer.copied != nullptr) plan_.api->destroy_event(buffer.copied);
    if (buffer.data != nullptr) plan_.api->free_pinned(buffer.data);
  }
  for (void* mark : marks_) plan_.api->destroy_event(mark);
  if (stream_ != nullptr) plan_.api->destroy_stream(stream_);
}

void Staging::check_size(std::size_t size_bytes) const {
  check_usable();
  if (size_bytes <= plan_.buffer_bytes) return;
  throw CommError(fmt::format("{}: a message of {} bytes is larger than its buffers of {}",
                              plan_.name, size_bytes, plan_.buffer_bytes));
}

void Staging::check_usable() const {
  if (!usable_) throw CommError(fmt::format("{} has failed or was given up", plan_.name));
}

StagingBuffer* Staging::take() {
  if (free_.empty()) return nullptr;
  StagingBuffer* buffer = free_.back();
  free_.pop_back();
  return buffer;
}

void Staging::copy(StagingBuffer& buffer, void* to, const void* from, std::size_t size_bytes) {
  guarded([&] {
    if (size_bytes > 0) plan_.api->copy(to, from, size_bytes, stream_);
    plan_.api->record(buffer.copied, stream_);
  });
}

bool Staging::copied(const StagingBuffer& buffer) {
  return guarded([&] { return plan_.api->done(buffer.copied); });
}

void Staging::order_compute_after(const StagingBuffer& buffer) {
  guarded([&] { plan_.api->wait(*compute_stream_, buffer.copied); });
}

void* Staging::mark_compute() {
  if (!compute_stream_) return nullptr;
  return guarded([&] {
    if (free_marks_.empty()) {
      marks_.reserve(marks_.size() + 1);
      marks_.push_back(plan_.api->create_event());
      free_marks_.push_back(marks_.back());
    }
    void* mark = free_marks_.back();
    free_marks_.pop_back();
    plan_.api->record(mark, *compute_stream_);
    return mark;
  });
}

void Staging::wait_for(void* mark) {
  if (mark == nullptr) return;
  // The wait is for what the mark stands for now.
  guarded([&] { plan_.api->wait(stream_, mark); });
  free_marks_.push_back(mark);
}

StagedSender::StagedSender(std::unique_ptr<LinkSender> host, StagingPlan plan)
    : staging_(std::move(plan)), host_(std::move(host)) {}

Ticket StagedSender::send(std::span<const std::byte> bytes) {
  staging_.check_size(bytes.size());
  messages_.push_back({bytes, State::queued, staging_.mark_compute()});
  const Ticket ticket = first_ + messages_.size() - 1;
  progress();
  return ticket;
}

bool StagedSender::done(Ticket ticket) {
  if (ticket >= first_ + messages_.size()) {
    throw std::out_of_range(fmt::format("comm: no send has ticket {}", ticket));
  }
  if (ticket >= first_) progress();
  return ticket < first_;
}

bool StagedSender::order_compute_after(Ticket ticket) {
  if (done(ticket)) return true;
  const Message& message = messages_[ticket - first_];
  if (message.state == State::queued || !staging_.has_compute_stream()) return false;
  // The memory is free once it is copied.
  staging_.order_compute_after(*message.buffer);
  return true;
}

void StagedSender::progress() {
  staging_.check_usable();
  host_->progress();
  bool all_before_sent = true;  // messages are handed to the host link in order
  for (Message& message : messages_) {
    if (message.state == State::queued && !copy(message)) break;
    if (message.state == State::copying && all_before_sent && staging_.copied(*message.buffer)) {
      message.host_ticket =
          host_->send({static_cast<const std::byte*>(message.buffer->data), message.bytes.size()});
      message.state = State::sending;
    }
    all_before_sent = message.state == State::sending;
  }
  while (!messages_.empty() && messages_.front().state == State::sending &&
         host_->done(messages_.front().host_ticket)) {
    staging_.give_back(messages_.front().buffer);
    messages_.pop_front();
    ++first_;
  }
}

// False: there is no free buffer.
bool StagedSender::copy(Message& message) {
  message.buffer = staging_.take();
  if (message.buffer == nullptr) return false;
  staging_.wait_for(std::exchange(message.ready, nullptr));
  staging_.copy(*message.buffer, message.buffer->data, message.bytes.data(), message.bytes.size());
  message.state = State::copying;
  return true;
}

StagedReceiver::StagedReceiver(std::unique_ptr<LinkReceiver> host, StagingPlan plan)
    : staging_(std::move(plan)), host_(std::move(host)) {}

Ticket StagedReceiver::receive(std::span<std::byte> bytes) {
  staging_.check_size(bytes.size());
  messages_.push_back({bytes});
  const Ticket ticket = first_ + messages_.size() - 1;
  progress();
  return ticket;
}

bool StagedReceiver::done(Ticket ticket) {
  if (ticket >= first_ + messages_.size()) {
    throw std::out_of_range(fmt::format("comm: no receive has ticket {}", ticket));
  }
  if (ticket >= first_) progress();
  return ticket < first_;
}

bool StagedReceiver::order_compute_after(Ticket ticket) {
  if (done(ticket)) return true;
  const Message& message = messages_[ticket - first_];
  if (message.state != State::copying || !staging_.has_compute_stream()) return false;
  staging_.order_compute_after(*message.buffer);
  return true;
}

void StagedReceiver::progress() {
  staging_.check_usable();
  host_->progress();
  bool all_before_arrived = true;
  for (Message& message : messages_) {
    if (message.state == State::queued && !post(message)) break;
    if (message.state == State::receiving && all_before_arrived &&
        host_->done(message.host_ticket)) {
      staging_.copy(*message.buffer, message.bytes.data(), message.buffer->data,
                    message.bytes.size());
      message.state = State::copying;
    }
    all_before_arrived = message.state == State::copying;
  }
  while (!messages_.empty() && messages_.front().state == State::copying &&
         staging_.copied(*messages_.front().buffer)) {
    staging_.give_back(messages_.front().buffer);
    messages_.pop_front();
    ++first_;
  }
}

// False: there is no free buffer.
bool StagedReceiver::post(Message& message) {
  message.buffer = staging_.take();
  if (message.buffer == nullptr) return false;
  message.host_ticket =
      host_->receive({static_cast<std::byte*>(message.buffer->data), message.bytes.size()});
  message.state = State::receiving;
  return true;
}

}  // namespace penstock::comm
