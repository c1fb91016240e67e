#pragma once

#include <deque>
#include <memory>

#include "comm/link.hpp"
#include "comm/local_hub.hpp"

namespace penstock::comm {

class LocalSender final : public LinkSender {
 public:
  // The edge from member `member` to the next.
  LocalSender(std::shared_ptr<LocalHub> hub, int member);
  ~LocalSender() override;

  Ticket send(std::span<const std::byte> bytes) override;
  bool done(Ticket ticket) override;
  void progress() override {}
  void abort() noexcept override;

 private:
  [[noreturn]] void throw_receiver_left() const;

  std::shared_ptr<LocalHub> hub_;
  LocalEdge& edge_;
  int member_;
  Ticket next_ = 0;
};

class LocalReceiver final : public LinkReceiver {
 public:
  // The edge from the member before `member`.
  LocalReceiver(std::shared_ptr<LocalHub> hub, int member);
  ~LocalReceiver() override;

  Ticket receive(std::span<std::byte> bytes) override;
  bool done(Ticket ticket) override;
  void progress() override;

 private:
  bool copy_next();

  std::shared_ptr<LocalHub> hub_;
  LocalEdge& edge_;
  int member_;
  std::deque<std::span<std::byte>> posted_;  // receives not yet filled
  Ticket completed_ = 0;
};

}  // namespace penstock::comm
