#include "comm/mpi_control.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <utility>

#include "comm/error.hpp"
#include "comm/members.hpp"
#include "comm/wait.hpp"

// all_gather is a star of point-to-point messages around member 0, since MPI's own collectives
// cannot say who is missing. Member 0 says that it has come, takes a part from each member, and
// answers all of them with the parts or with what is missing.

namespace penstock::comm {
namespace {

// First byte of what member 0 sends.
constexpr char kHere = 'h';
constexpr char kParts = 'p';
constexpr char kMissing = 'm';

// How long the others wait for member 0's word after its own deadline.
constexpr std::chrono::seconds kAnswerTime{5};
// A look into the network costs more than one at the clock, and heartbeats are rare.
constexpr auto kLookInterval = kBeatInterval / 20;
// How long a member waits for the last heartbeats of others.
constexpr std::chrono::seconds kFarewellTime{10};
// How long member 0 tries to tell the others what is missing before it throws.
constexpr std::chrono::milliseconds kTellTime{500};

std::string pack(const std::vector<std::string>& parts) {
  std::string packed(1, kParts);
  for (const std::string& part : parts) {
    const std::uint64_t size_bytes = part.size();
    packed.append(reinterpret_cast<const char*>(&size_bytes), sizeof size_bytes);
    packed.append(part);
  }
  return packed;
}

// All ranks run one program on machines of one kind, so sizes travel as they lie in memory.
std::vector<std::string> unpack(std::string_view packed, int parts) {
  std::vector<std::string> result;
  packed.remove_prefix(1);
  for (int i = 0; i < parts; ++i) {
    std::uint64_t size_bytes = 0;
    if (packed.size() < sizeof size_bytes) throw CommError("all_gather: the answer is cut short");
    std::memcpy(&size_bytes, packed.data(), sizeof size_bytes);
    packed.remove_prefix(sizeof size_bytes);
    if (packed.size() < size_bytes) throw CommError("all_gather: the answer is cut short");
    result.emplace_back(packed.substr(0, size_bytes));
    packed.remove_prefix(size_bytes);
  }
  return result;
}

std::string_view as_text(const ControlMessage& message) {
  return {reinterpret_cast<const char*>(message.bytes.data()), message.bytes.size()};
}

}  // namespace

MpiControl::MpiControl(const MpiGroup& group)
    : member_(group.member),
      descriptions_(group.names),
      messages_(group.communicator),
      collectives_(group.communicator),
      beats_(group.communicator),
      pulses_(static_cast<int>(group.names.size()), group.member, Clock::now()),
      exceptions_(std::uncaught_exceptions()) {}

std::string MpiControl::describe(int member) const {
  check_member(*this, member);
  return descriptions_[static_cast<std::size_t>(member)];
}

void MpiControl::send(int to, std::span<const std::byte> bytes) {
  check_member(*this, to);
  messages_.send(to, bytes);
}

void MpiControl::progress() { messages_.progress(); }

void MpiControl::beat(std::uint64_t done) {
  const Clock::time_point now = Clock::now();
  pulses_.note_own(done, now);
  if (now < next_look_) return;
  next_look_ = now + kLookInterval;
  take_heartbeats(now);
  if (now < next_beat_) return;
  next_beat_ = now + kBeatInterval;
  for (const std::vector<std::byte>& piece : pulses_.heartbeats(now)) send_heartbeat(piece);
}

void MpiControl::take_heartbeats(Clock::time_point now) {
  while (const std::optional<ControlMessage> message = beats_.try_receive()) {
    if (message->bytes.empty()) {
      ++farewells_;
    } else {
      pulses_.take(message->from, message->bytes, now);
    }
  }
}

void MpiControl::send_heartbeat(std::span<const std::byte> bytes) {
  if (member_ > 0) beats_.send(0, bytes);
  for (int i = 1; member_ == 0 && i < size(); ++i) beats_.send(i, bytes);
}

// An empty heartbeat is a member's last. Member 0 sends its own when it has those of all others.
void MpiControl::say_farewell() {
  const auto wait_for = [this](int farewells) {
    Wait wait([] { return std::string("the last heartbeats"); }, kFarewellTime);
    while (farewells_ < farewells) {
      take_heartbeats(Clock::now());
      if (farewells_ < farewells) wait.pause();
    }
  };
  if (member_ == 0) wait_for(size() - 1);
  send_heartbeat({});
  if (member_ > 0) wait_for(1);
}

MpiControl::~MpiControl() {
  if (std::uncaught_exceptions() > exceptions_) return;
  try {
    say_farewell();
  } catch (const CommError&) {
    // A destructor cannot report, and all that mattered was said before.
  }
}

Pulse MpiControl::pulse(int member) const {
  check_member(*this, member);
  return pulses_.of(member);
}

std::vector<std::string> MpiControl::all_gather(std::string_view bytes, std::string_view what,
                                                std::chrono::milliseconds timeout) {
  return member_ == 0 ? gather_and_answer(bytes, what, timeout) : ask_first(bytes, what, timeout);
}

void MpiControl::send_to_others(std::string_view text) {
  for (int i = 1; i < size(); ++i) collectives_.send(i, std::as_bytes(std::span(text)));
}

std::vector<std::string> MpiControl::gather_and_answer(std::string_view bytes,
                                                       std::string_view what,
                                                       std::chrono::milliseconds timeout) {
  send_to_others({&kHere, 1});
  std::vector<std::optional<std::string>> parts(descriptions_.size());
  parts[0] = std::string(bytes);
  const Clock::time_point start = Clock::now();
  Lookout lookout(timeout, start);
  Pacer pacer(Pacer::Pace::patient, start);
  for (int arrived = 1; arrived < size();) {
    beat(0);
    if (const std::optional<ControlMessage> message = collectives_.try_receive()) {
      parts[static_cast<std::size_t>(message->from)] = std::string(as_text(*message));
      ++arrived;
      continue;
    }
    std::vector<int> missing;
    for (int i = 0; i < size(); ++i) {
      if (!parts[static_cast<std::size_t>(i)]) missing.push_back(i);
    }
    const Clock::time_point now = Clock::now();
    lookout.look(now);
    const std::vector<int> late = standing_still(*this, missing, lookout, timeout);
    if (late.empty()) {
      pacer.pause(now);
      continue;
    }
    try {
      throw_missing(*this, what, late, timeout);
    } catch (const CommError& error) {
      send_to_others(kMissing + std::string(error.what()));
      const Clock::time_point end = Clock::now() + kTellTime;
      while (!collectives_.progress() && Clock::now() < end) {
      }
      throw;
    }
  }
  std::vector<std::string> all;
  for (std::optional<std::string>& part : parts) all.push_back(*std::move(part));
  send_to_others(pack(all));
  return all;
}

std::vector<std::string> MpiControl::ask_first(std::string_view bytes, std::string_view what,
                                               std::chrono::milliseconds timeout) {
  collectives_.send(0, std::as_bytes(std::span(bytes)));
  const Clock::time_point start = Clock::now();
  Lookout lookout(timeout, start);
  Pacer pacer(Pacer::Pace::patient, start);
  bool first_is_here = false;
  for (;;) {
    beat(0);
    const std::optional<ControlMessage> message = collectives_.try_receive();
    if (!message) {
      const Clock::time_point now = Clock::now();
      lookout.look(now);
      // Once member 0 is here it waits for others, and its answer names who is really missing.
      const Pulse first = pulses_.of(0);
      const bool lost = first_is_here ? lookout.age(first.heard) >= timeout + kAnswerTime
                                      : lookout.age(first.moved) >= timeout;
      if (lost) throw_missing(*this, what, {0}, timeout);
      pacer.pause(now);
      continue;
    }
    const std::string_view text = as_text(*message);
    if (text.starts_with(kHere)) {
      first_is_here = true;
    } else if (text.starts_with(kMissing)) {
      throw CommError(std::string(text.substr(1)));
    } else {
      return unpack(text, size());
    }
  }
}

}  // namespace penstock::comm
