#include "comm/mpi_control.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
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

MpiControl::MpiControl(const World& world)
    : member_(world.rank()), messages_(world.communicator()), collectives_(world.communicator()) {
  for (int i = 0; i < world.size(); ++i) {
    descriptions_.push_back(fmt::format("rank {}, host {}", i, world.host(i)));
  }
}

std::string MpiControl::describe(int member) const {
  check_member(*this, member);
  return descriptions_[static_cast<std::size_t>(member)];
}

void MpiControl::send(int to, std::span<const std::byte> bytes) {
  check_member(*this, to);
  messages_.send(to, bytes);
}

void MpiControl::progress() { messages_.progress(); }

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
  Wait wait(
      [&] {
        std::vector<int> missing;
        for (int i = 0; i < size(); ++i) {
          if (!parts[static_cast<std::size_t>(i)]) missing.push_back(i);
        }
        return fmt::format("{} from {}", what, describe_members(*this, missing));
      },
      timeout);
  for (int arrived = 1; arrived < size();) {
    if (const std::optional<ControlMessage> message = collectives_.try_receive()) {
      parts[static_cast<std::size_t>(message->from)] = std::string(as_text(*message));
      ++arrived;
      continue;
    }
    try {
      wait.pause();
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
  const auto name = [&] { return fmt::format("{} from {}", what, describe(0)); };
  Wait for_first(name, timeout);
  // Member 0's own deadline starts when it comes, and its answer names who is really missing.
  std::optional<Wait> for_answer;
  for (;;) {
    const std::optional<ControlMessage> message = collectives_.try_receive();
    if (!message) {
      for_answer ? for_answer->pause() : for_first.pause();
      continue;
    }
    const std::string_view text = as_text(*message);
    if (text.starts_with(kHere)) {
      for_answer.emplace(name, timeout + kAnswerTime);
    } else if (text.starts_with(kMissing)) {
      throw CommError(std::string(text.substr(1)));
    } else {
      return unpack(text, size());
    }
  }
}

}  // namespace penstock::comm
