#include "comm/local_control.hpp"

#include <fmt/format.h>

#include <utility>

#include "comm/error.hpp"
#include "comm/members.hpp"
#include "comm/wait.hpp"

namespace penstock::comm {

LocalControl::LocalControl(std::shared_ptr<LocalHub> hub, int member)
    : hub_(std::move(hub)), member_(member) {}

LocalControl::~LocalControl() {
  const std::lock_guard lock(hub_->mutex);
  hub_->left[static_cast<std::size_t>(member_)] = true;
}

void LocalControl::send(int to, std::span<const std::byte> bytes) {
  check_member(*this, to);
  {
    const std::lock_guard lock(hub_->mutex);
    if (hub_->left[static_cast<std::size_t>(to)]) {
      throw CommError(
          fmt::format("{} has left; {} cannot send to it", describe(to), describe(member_)));
    }
  }
  ControlMessage message{member_, {bytes.begin(), bytes.end()}};
  LocalMailbox& mailbox = hub_->mailboxes[static_cast<std::size_t>(to)];
  const std::lock_guard lock(mailbox.mutex);
  mailbox.messages.push_back(std::move(message));
}

std::optional<ControlMessage> LocalControl::try_receive() {
  // Who leaves has sent before: look for leavers first, then for their messages.
  std::vector<int> left;
  {
    const std::lock_guard lock(hub_->mutex);
    for (int i = 0; i < size(); ++i) {
      if (hub_->left[static_cast<std::size_t>(i)]) left.push_back(i);
    }
  }
  LocalMailbox& mailbox = hub_->mailboxes[static_cast<std::size_t>(member_)];
  const std::lock_guard lock(mailbox.mutex);
  if (mailbox.messages.empty()) {
    if (left.empty()) return std::nullopt;
    throw CommError(fmt::format("{} has left while {} still waits for messages",
                                describe_members(*this, left), describe(member_)));
  }
  ControlMessage message = std::move(mailbox.messages.front());
  mailbox.messages.pop_front();
  return message;
}

void LocalControl::beat(std::uint64_t done) {
  LocalPulse& pulse = hub_->pulses[static_cast<std::size_t>(member_)];
  const Clock::time_point now = Clock::now();
  pulse.heard = now;
  if (done == 0) return;
  pulse.progress += done;
  pulse.moved = now;
}

Pulse LocalControl::pulse(int member) const {
  check_member(*this, member);
  const LocalPulse& pulse = hub_->pulses[static_cast<std::size_t>(member)];
  return {pulse.heard, pulse.progress, pulse.moved};
}

std::vector<std::string> LocalControl::all_gather(std::string_view bytes, std::string_view what,
                                                  std::chrono::milliseconds timeout) {
  {
    const std::lock_guard lock(hub_->mutex);
    LocalRound& round = hub_->rounds[round_];
    round.parts.resize(static_cast<std::size_t>(size()));
    round.parts[static_cast<std::size_t>(member_)] = std::string(bytes);
    ++round.arrived;
  }
  const Clock::time_point start = Clock::now();
  Lookout lookout(timeout, start);
  Pacer pacer(Pacer::Pace::patient, start);
  for (;;) {
    beat(0);
    if (std::optional<std::vector<std::string>> all = try_finish_round(what)) {
      ++round_;
      return *std::move(all);
    }
    const Clock::time_point now = Clock::now();
    lookout.look(now);
    const std::vector<int> late = standing_still(*this, missing(), lookout, timeout);
    if (!late.empty()) throw_missing(*this, what, late, timeout);
    pacer.pause(now);
  }
}

std::vector<int> LocalControl::missing() const {
  const std::lock_guard lock(hub_->mutex);
  const LocalRound& round = hub_->rounds[round_];
  std::vector<int> members;
  for (int i = 0; i < size(); ++i) {
    if (!round.parts[static_cast<std::size_t>(i)]) members.push_back(i);
  }
  return members;
}

std::optional<std::vector<std::string>> LocalControl::try_finish_round(std::string_view what) {
  const std::lock_guard lock(hub_->mutex);
  LocalRound& round = hub_->rounds[round_];
  if (round.arrived < size()) {
    for (int i = 0; i < size(); ++i) {
      const auto index = static_cast<std::size_t>(i);
      if (hub_->left[index] && !round.parts[index]) {
        throw CommError(fmt::format("{} has left; {} waits for {} from it", describe(i),
                                    describe(member_), what));
      }
    }
    return std::nullopt;
  }
  std::vector<std::string> all;
  for (const std::optional<std::string>& part : round.parts) all.push_back(*part);
  if (++round.read == size()) hub_->rounds.erase(round_);
  return all;
}

}  // namespace penstock::comm
