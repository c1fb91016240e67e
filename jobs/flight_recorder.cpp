#include "jobs/flight_recorder.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <memory>
#include <utility>

namespace penstock::jobs {
namespace {

// What the amount of an event counts.
std::string_view unit_of(FlightEvent event) {
  switch (event) {
    case FlightEvent::plan_received:
    case FlightEvent::receive_posted:
    case FlightEvent::activations_arrived:
    case FlightEvent::send_posted:
      return "bytes";
    case FlightEvent::forward_begin:
    case FlightEvent::forward_end:
      return "rows";
    case FlightEvent::tokens_sent:
    case FlightEvent::tokens_arrived:
      return "ids";
    case FlightEvent::beats_missed:
      return "stage";
    case FlightEvent::signal:
      return "request";
  }
  return "";
}

std::string utc(std::chrono::system_clock::time_point time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(time - whole).count();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(whole);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}Z", parts, micros);
}

}  // namespace

std::string_view to_string(FlightEvent event) {
  switch (event) {
    case FlightEvent::plan_received:
      return "plan received";
    case FlightEvent::receive_posted:
      return "receive posted";
    case FlightEvent::activations_arrived:
      return "activations arrived";
    case FlightEvent::forward_begin:
      return "forward begins";
    case FlightEvent::forward_end:
      return "forward ends";
    case FlightEvent::send_posted:
      return "send posted";
    case FlightEvent::tokens_sent:
      return "tokens sent";
    case FlightEvent::tokens_arrived:
      return "tokens arrived";
    case FlightEvent::beats_missed:
      return "heartbeats missed";
    case FlightEvent::signal:
      return "asked to stop";
  }
  return "";
}

FlightRecorder::FlightRecorder(std::string who) : who_(std::move(who)) {}

void FlightRecorder::note(FlightEvent event, std::uint64_t step, std::uint64_t slot,
                          std::uint64_t amount) noexcept {
  const auto now = std::chrono::system_clock::now();
  const std::lock_guard lock(mutex_);
  events_[noted_++ % kEvents] = {now, step, slot, amount, event};
}

void FlightRecorder::write(const std::string& path) const noexcept {
  try {
    const std::lock_guard lock(mutex_);
    std::string text = fmt::format("{}: the last {} of {} events\n", who_,
                                   std::min<std::uint64_t>(noted_, kEvents), noted_);
    for (std::uint64_t i = noted_ > kEvents ? noted_ - kEvents : 0; i < noted_; ++i) {
      const Event& event = events_[i % kEvents];
      text += fmt::format("{}  {:<20}", utc(event.time), to_string(event.kind));
      if (event.step != kNone) text += fmt::format("  step {} slot {}", event.step, event.slot);
      text += fmt::format("  {} {}\n", unit_of(event.kind), event.amount);
    }
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "w"),
                                                               std::fclose);
    if (file) std::fwrite(text.data(), 1, text.size(), file.get());
  } catch (...) {
    // No memory for the text: the failure that is being reported matters more.
  }
}

}  // namespace penstock::jobs
