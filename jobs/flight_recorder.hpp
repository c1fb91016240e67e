#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace penstock::jobs {

enum class FlightEvent : std::uint8_t {
  plan_received,        // bytes: of the message
  receive_posted,       // bytes: of the activations
  activations_arrived,  // bytes
  forward_begin,        // amount: rows
  forward_end,          // amount: rows
  send_posted,          // bytes: of the activations
  tokens_sent,          // amount: ids
  tokens_arrived,       // amount: ids
  beats_missed,         // amount: the stage that is silent
  signal,               // amount: jobs::StopRequest
};
std::string_view to_string(FlightEvent event);

// The last events of one rank, always on, to be read after a failure. note() takes some tens of
// nanoseconds and no memory. May be used by any thread.
class FlightRecorder {
 public:
  static constexpr std::size_t kEvents = 256;
  // Stands for a step or slot that an event does not have.
  static constexpr std::uint64_t kNone = UINT64_MAX;

  // `who`: "stage 2, rank 6, host n042", the first line of what write() makes.
  explicit FlightRecorder(std::string who);

  void note(FlightEvent event, std::uint64_t step, std::uint64_t slot,
            std::uint64_t amount) noexcept;

  // Writes `path`: plain text, one event a line with its UTC time, oldest first. What cannot be
  // written is left out: it is not what ended the run.
  void write(const std::string& path) const noexcept;

 private:
  struct Event {
    std::chrono::system_clock::time_point time;
    std::uint64_t step = 0;
    std::uint64_t slot = 0;
    std::uint64_t amount = 0;
    FlightEvent kind = FlightEvent::signal;
  };

  std::string who_;
  mutable std::mutex mutex_;
  std::array<Event, kEvents> events_{};
  std::uint64_t noted_ = 0;
};

}  // namespace penstock::jobs
