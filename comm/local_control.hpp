#pragma once

#include <memory>

#include "comm/control.hpp"
#include "comm/local_hub.hpp"

namespace penstock::comm {

class LocalControl final : public Control {
 public:
  LocalControl(std::shared_ptr<LocalHub> hub, int member);
  ~LocalControl() override;

  int member() const override { return member_; }
  int size() const override { return static_cast<int>(hub_->mailboxes.size()); }
  std::string describe(int member) const override { return hub_->describe(member); }

  void send(int to, std::span<const std::byte> bytes) override;
  std::optional<ControlMessage> try_receive() override;
  void progress() override {}
  void beat(std::uint64_t done) override;
  Pulse pulse(int member) const override;
  std::vector<std::string> all_gather(std::string_view bytes, std::string_view what,
                                      std::chrono::milliseconds timeout) override;

 private:
  std::vector<int> missing() const;
  std::optional<std::vector<std::string>> try_finish_round(std::string_view what);

  std::shared_ptr<LocalHub> hub_;
  int member_;
  std::uint64_t round_ = 0;  // all_gathers joined so far
};

}  // namespace penstock::comm
