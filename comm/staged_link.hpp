#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/link.hpp"
#include "comm/staging_api.hpp"

// Links for GPU memory over a link for host memory, by way of pinned buffers: where NCCL cannot be
// had, or where two ranks share a GPU. A message is copied as a whole, then sent as a whole.
namespace penstock::comm {

// What both ends have in common: a stream, and pinned buffers of one size, made with it or by
// make_room(), and freed with it.
// `name`: "edge from rank 2, host a to rank 3, host b". The thread's current GPU must be the same
// in all calls.
struct StagingPlan {
  std::shared_ptr<StagingApi> api;
  std::string name;
  std::size_t buffers = 0;       // messages under way at once; further ones wait for a free buffer
  std::size_t buffer_bytes = 0;  // of the largest message
};

// A pinned buffer and the event behind the last copy to or from it.
struct StagingBuffer {
  void* data = nullptr;
  void* copied = nullptr;
};

// Owns what a StagingPlan says. Failures of CUDA are CommErrors with the edge's name.
class Staging {
 public:
  explicit Staging(StagingPlan plan);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  void check_size(std::size_t size_bytes) const;
  void check_usable() const;

  // Until there are so many.
  void make_buffers(std::size_t buffers);
  // Null if all are in use.
  StagingBuffer* take();
  void give_back(StagingBuffer* buffer) { free_.push_back(buffer); }

  // On the stream, and the event behind it.
  void copy(StagingBuffer& buffer, void* to, const void* from, std::size_t size_bytes);
  bool copied(const StagingBuffer& buffer);

  // The compute stream waits for the last copy.
  void order_compute_after(const StagingBuffer& buffer);
  // An event for what is on the compute stream now; null without one.
  void* mark_compute();
  // The stream waits for the mark, which is then free for another use.
  void wait_for(void* mark);
  void set_compute_stream(void* stream) { compute_stream_ = stream; }
  bool has_compute_stream() const { return compute_stream_.has_value(); }

  // Afterwards no copy is under way.
  void abort() noexcept;

 private:
  template <typename Body>
  auto guarded(Body body);
  void release() noexcept;

  StagingPlan plan_;
  void* stream_ = nullptr;
  std::optional<void*> compute_stream_;
  std::deque<StagingBuffer> buffers_;  // stay where they are when more are made
  std::vector<StagingBuffer*> free_;
  std::vector<void*> marks_;       // all that were made
  std::vector<void*> free_marks_;  // not in use
  bool usable_ = true;
};

class StagedSender final : public LinkSender {
 public:
  StagedSender(std::unique_ptr<LinkSender> host, StagingPlan plan);

  Ticket send(std::span<const std::byte> bytes) override;
  bool done(Ticket ticket) override;
  void progress() override;
  void set_compute_stream(void* stream) override { staging_.set_compute_stream(stream); }
  bool order_compute_after(Ticket ticket) override;
  void make_room(std::size_t messages) override { staging_.make_buffers(messages); }
  void abort() noexcept override { staging_.abort(); }

 private:
  enum class State { queued, copying, sending };
  struct Message {
    std::span<const std::byte> bytes;
    State state = State::queued;
    void* ready = nullptr;  // the mark on the compute stream that it starts after
    StagingBuffer* buffer = nullptr;
    Ticket host_ticket = 0;
  };
  bool copy(Message& message);

  Staging staging_;
  std::unique_ptr<LinkSender> host_;  // ends before the buffers that it sends from
  std::deque<Message> messages_;      // oldest first
  Ticket first_ = 0;                  // ticket of the oldest
};

class StagedReceiver final : public LinkReceiver {
 public:
  StagedReceiver(std::unique_ptr<LinkReceiver> host, StagingPlan plan);

  Ticket receive(std::span<std::byte> bytes) override;
  bool done(Ticket ticket) override;
  void progress() override;
  void set_compute_stream(void* stream) override { staging_.set_compute_stream(stream); }
  bool order_compute_after(Ticket ticket) override;
  void make_room(std::size_t messages) override { staging_.make_buffers(messages); }
  void abort() noexcept override { staging_.abort(); }

 private:
  enum class State { queued, receiving, copying };
  struct Message {
    std::span<std::byte> bytes;
    State state = State::queued;
    StagingBuffer* buffer = nullptr;
    Ticket host_ticket = 0;
  };
  bool post(Message& message);

  Staging staging_;
  std::unique_ptr<LinkReceiver> host_;  // ends before the buffers that it receives into
  std::deque<Message> messages_;        // oldest first
  Ticket first_ = 0;                    // ticket of the oldest
};

}  // namespace penstock::comm
