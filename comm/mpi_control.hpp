#pragma once

#include <string>
#include <vector>

#include "comm/control.hpp"
#include "comm/mpi_communicator.hpp"
#include "comm/mpi_messages.hpp"
#include "comm/pulse_table.hpp"

namespace penstock::comm {

class MpiControl final : public Control {
 public:
  // Collective over the group.
  explicit MpiControl(const MpiGroup& group);
  // Collective, unless an exception unwinds: takes in the last heartbeats, since MPI wants no
  // message left when it ends. Gives up after some seconds.
  ~MpiControl() override;

  int member() const override { return member_; }
  int size() const override { return static_cast<int>(descriptions_.size()); }
  std::string describe(int member) const override;

  void send(int to, std::span<const std::byte> bytes) override;
  std::optional<ControlMessage> try_receive() override { return messages_.try_receive(); }
  void progress() override;
  void beat(std::uint64_t done) override;
  Pulse pulse(int member) const override;
  std::vector<std::string> all_gather(std::string_view bytes, std::string_view what,
                                      std::chrono::milliseconds timeout) override;

 private:
  void take_heartbeats(Clock::time_point now);
  void send_heartbeat(std::span<const std::byte> bytes);
  void say_farewell();
  void send_to_others(std::string_view text);
  std::vector<std::string> gather_and_answer(std::string_view bytes, std::string_view what,
                                             std::chrono::milliseconds timeout);
  std::vector<std::string> ask_first(std::string_view bytes, std::string_view what,
                                     std::chrono::milliseconds timeout);

  int member_;
  std::vector<std::string> descriptions_;  // [size]
  MpiMessages messages_;
  MpiMessages collectives_;
  MpiMessages beats_;
  PulseTable pulses_;
  int exceptions_;               // under way when this object was made
  int farewells_ = 0;            // members that send no more heartbeats
  Clock::time_point next_look_;  // for heartbeats
  Clock::time_point next_beat_;
};

}  // namespace penstock::comm
