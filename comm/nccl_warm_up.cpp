#include "comm/nccl_warm_up.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <exception>
#include <vector>

#include "comm/device/error.hpp"
#include "comm/error.hpp"

namespace penstock::comm {
namespace {

constexpr std::size_t kSmallBytes = 64;
constexpr int kSmallRounds = 20;
constexpr int kLargeRounds = 4;

// GPU memory. An exception leaves it to the end of the process: freeing would wait for a receive
// that never ends.
class Message {
 public:
  Message(NcclApi& api, std::size_t size_bytes)
      : api_(api), data_(api.allocate(size_bytes)), exceptions_(std::uncaught_exceptions()) {}
  ~Message() {
    if (std::uncaught_exceptions() == exceptions_) api_.free(data_);
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
  void* data() const { return data_; }

 private:
  NcclApi& api_;
  void* data_;
  int exceptions_;
};

// Bytes that depend on their position and on which rank sends them.
std::vector<std::uint8_t> pattern(std::size_t size_bytes, int sender) {
  std::vector<std::uint8_t> bytes(size_bytes);
  std::uint32_t state = 0x9E3779B9U + static_cast<std::uint32_t>(sender);
  for (std::uint8_t& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::uint8_t>(state >> 24U);
  }
  return bytes;
}

class WarmUp {
 public:
  WarmUp(NcclApi& api, NcclEdge& edge, int rank, std::size_t message_bytes,
         std::chrono::milliseconds timeout)
      : api_(api),
        edge_(edge),
        rank_(rank),
        message_bytes_(message_bytes),
        timeout_(timeout),
        message_(api, message_bytes) {}

  NcclSpeed run() {
    check_contents();
    NcclSpeed speed;
    // One round first: the very first messages also set things up.
    exchange(kSmallBytes);
    Clock::time_point start = Clock::now();
    for (int i = 0; i < kSmallRounds; ++i) exchange(kSmallBytes);
    speed.hop_us = std::chrono::duration<double, std::micro>(Clock::now() - start).count() /
                   (2.0 * kSmallRounds);
    start = Clock::now();
    // Posted ahead, so that NCCL's work on the host overlaps with the transfers.
    Ticket last = 0;
    for (int i = 0; i < kLargeRounds; ++i) last = post_exchange(message_bytes_);
    finish(last);
    speed.bytes_per_s = 2.0 * kLargeRounds * static_cast<double>(message_bytes_) /
                        std::chrono::duration<double>(Clock::now() - start).count();
    return speed;
  }

 private:
  void check_contents() {
    if (rank_ == 0) {
      send_pattern();
      receive_pattern();
    } else {
      receive_pattern();
      send_pattern();
    }
  }

  void send_pattern() {
    const std::vector<std::uint8_t> bytes = pattern(message_bytes_, rank_);
    api_.copy(message_.data(), bytes.data(), message_bytes_);
    finish(edge_.post(NcclOperation::send, message_.data(), message_bytes_));
  }

  void receive_pattern() {
    finish(edge_.post(NcclOperation::receive, message_.data(), message_bytes_));
    std::vector<std::uint8_t> arrived(message_bytes_);
    api_.copy(arrived.data(), message_.data(), message_bytes_);
    if (arrived != pattern(message_bytes_, 1 - rank_)) {
      throw CommError(fmt::format(
          "{}: a test message of {} bytes arrived with other contents than it was sent with",
          edge_.name(), message_bytes_));
    }
  }

  // There and back. The last ticket.
  Ticket post_exchange(std::size_t size_bytes) {
    using enum NcclOperation;
    edge_.post(rank_ == 0 ? send : receive, message_.data(), size_bytes);
    return edge_.post(rank_ == 0 ? receive : send, message_.data(), size_bytes);
  }

  void exchange(std::size_t size_bytes) { finish(post_exchange(size_bytes)); }

  void finish(Ticket ticket) {
    Wait wait([&] { return fmt::format("test message on the {}", edge_.name()); }, timeout_);
    while (!edge_.done(ticket)) wait.pause();
  }

  NcclApi& api_;
  NcclEdge& edge_;
  int rank_;
  std::size_t message_bytes_;
  std::chrono::milliseconds timeout_;
  Message message_;
};

}  // namespace

NcclSpeed warm_up(NcclApi& api, NcclEdge& edge, int rank, std::size_t message_bytes,
                  std::chrono::milliseconds timeout) {
  try {
    return WarmUp(api, edge, rank, message_bytes, timeout).run();
  } catch (const device::DeviceError& e) {
    throw CommError(fmt::format("{}: {}", edge.name(), e.what()));
  }
}

}  // namespace penstock::comm
