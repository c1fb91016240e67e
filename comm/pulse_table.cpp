#include "comm/pulse_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "comm/error.hpp"

namespace penstock::comm {
namespace {

// 1 KiB, less than the eager limit of any transport.
constexpr std::size_t kEntriesPerPiece = 64;

std::uint32_t milliseconds_between(Clock::time_point earlier, Clock::time_point later) {
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(later - earlier).count();
  return static_cast<std::uint32_t>(
      std::clamp<std::int64_t>(age, 0, std::numeric_limits<std::uint32_t>::max()));
}

}  // namespace

// A heartbeat is the number of its first member (8 bytes), then an entry for each member from there
// on. All ranks run one program on machines of one kind, so numbers travel as they lie in memory.
struct PulseTable::Entry {
  std::uint64_t progress;
  std::uint32_t heard_ago_ms;
  std::uint32_t moved_ago_ms;
};

PulseTable::PulseTable(int members, int member, Clock::time_point now)
    : member_(member), pulses_(static_cast<std::size_t>(members), Pulse{now, 0, now}) {}

void PulseTable::note_own(std::uint64_t done, Clock::time_point now) {
  Pulse& own = pulses_[static_cast<std::size_t>(member_)];
  own.heard = now;
  if (done == 0) return;
  own.progress += done;
  own.moved = now;
}

PulseTable::Entry PulseTable::entry_of(int member, Clock::time_point now) const {
  const Pulse& pulse = of(member);
  return {pulse.progress, milliseconds_between(pulse.heard, now),
          milliseconds_between(pulse.moved, now)};
}

std::vector<std::vector<std::byte>> PulseTable::heartbeats(Clock::time_point now) const {
  const std::size_t begin = static_cast<std::size_t>(member_);
  const std::size_t end = member_ == 0 ? pulses_.size() : begin + 1;
  std::vector<std::vector<std::byte>> pieces;
  for (std::uint64_t first = begin; first < end; first += kEntriesPerPiece) {
    const std::size_t entries = std::min(kEntriesPerPiece, end - first);
    std::vector<std::byte>& piece = pieces.emplace_back(sizeof first + entries * sizeof(Entry));
    std::memcpy(piece.data(), &first, sizeof first);
    for (std::size_t i = 0; i < entries; ++i) {
      const Entry entry = entry_of(static_cast<int>(first + i), now);
      std::memcpy(piece.data() + sizeof first + i * sizeof entry, &entry, sizeof entry);
    }
  }
  return pieces;
}

void PulseTable::take(int from, std::span<const std::byte> heartbeat, Clock::time_point now) {
  std::uint64_t first = 0;
  const std::size_t entries =
      heartbeat.size() < sizeof first ? 0 : (heartbeat.size() - sizeof first) / sizeof(Entry);
  if (entries > 0) std::memcpy(&first, heartbeat.data(), sizeof first);
  const bool own_word = entries == 1 && first == static_cast<std::uint64_t>(from);
  if (entries == 0 || heartbeat.size() != sizeof first + entries * sizeof(Entry) ||
      first >= pulses_.size() || entries > pulses_.size() - first || (from != 0 && !own_word)) {
    throw CommError(fmt::format("a heartbeat of member {} is broken", from));
  }
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t member = static_cast<std::size_t>(first) + i;
    if (member == static_cast<std::size_t>(member_)) continue;  // knows better itself
    Entry entry{};
    std::memcpy(&entry, heartbeat.data() + sizeof first + i * sizeof entry, sizeof entry);
    Pulse& pulse = pulses_[member];
    const auto ago = [now](std::uint32_t ms) { return now - std::chrono::milliseconds(ms); };
    pulse.progress = entry.progress;
    pulse.heard = std::max(pulse.heard, ago(entry.heard_ago_ms));
    pulse.moved = std::max(pulse.moved, ago(entry.moved_ago_ms));
  }
  pulses_[static_cast<std::size_t>(from)].heard = now;
}

}  // namespace penstock::comm
