#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/control.hpp"

namespace penstock::comm {

// What the endpoints of one process share. Everything in a struct is guarded by its mutex,
// except the containers of a LocalHub that never change size, and the pulses.

// One edge: sends that were posted and not yet copied. The receiver copies, straight from the
// sender's buffer into its own.
struct LocalEdge {
  std::mutex mutex;
  std::condition_variable copied;
  std::deque<std::span<const std::byte>> posted;
  std::uint64_t completed = 0;  // sends copied so far
  bool copying = false;         // the receiver reads the front's buffer without the mutex
  bool sender_left = false;
  bool receiver_left = false;
};

struct LocalMailbox {
  std::mutex mutex;
  std::deque<ControlMessage> messages;
};

// What a member says of its life: written by its thread, read by all. Each number alone is right.
struct LocalPulse {
  std::atomic<Clock::time_point> heard{Clock::now()};
  std::atomic<std::uint64_t> progress{0};
  std::atomic<Clock::time_point> moved{Clock::now()};
};

// One all_gather.
struct LocalRound {
  std::vector<std::optional<std::string>> parts;  // [stages]; empty: has not come
  int arrived = 0;
  int read = 0;
};

struct LocalHub {
  // Member i is thread `first` + i * `stride` of the process.
  explicit LocalHub(int stages, int first = 0, int stride = 1)
      : mailboxes(static_cast<std::size_t>(stages)),
        edges(static_cast<std::size_t>(stages - 1)),
        pulses(static_cast<std::size_t>(stages)),
        left(static_cast<std::size_t>(stages), false),
        first_thread(first),
        thread_stride(stride) {}

  std::string describe(int member) const {
    return "thread " + std::to_string(first_thread + member * thread_stride);
  }

  std::vector<LocalMailbox> mailboxes;  // [stages]
  std::vector<LocalEdge> edges;         // [stages - 1]; edge i goes from member i to i + 1
  std::vector<LocalPulse> pulses;       // [stages]

  std::mutex mutex;                            // for all that follows
  std::map<std::uint64_t, LocalRound> rounds;  // by number; those not yet read by all
  std::vector<bool> left;                      // [stages]; endpoint destroyed

  const int first_thread;
  const int thread_stride;
};

}  // namespace penstock::comm
