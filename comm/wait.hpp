#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "comm/clock.hpp"
#include "comm/lookout.hpp"

namespace penstock::comm {

// The pauses of one polled wait: spins briefly, then yields, then sleeps in growing steps of at
// most 0.2 ms, so that waiting ranks leave the cores to those that work.
class Pacer {
 public:
  // `prompt`: only yields in the first second, for a rank with a core of its own that waits for a
  // GPU, whose steps take milliseconds.
  enum class Pace { patient, prompt };

  Pacer(Pace pace, Clock::time_point now) : pace_(pace), start_(now) {}
  void pause(Clock::time_point now);
  // Something came: what else is under way may be here soon.
  void restart(Clock::time_point now);

 private:
  Pace pace_;
  Clock::time_point start_;
  unsigned rounds_ = 0;
};

// One polled wait with a deadline and a name. Time in which the process was stopped does not count.
//
//   Wait wait([&] { return fmt::format("activations for slot {} from rank {}", …); }, timeout);
//   while (!done()) wait.pause();
class Wait {
 public:
  using Pace = Pacer::Pace;

  // `name` is only called when the deadline has passed.
  Wait(std::function<std::string()> name, std::chrono::milliseconds timeout,
       Pace pace = Pace::patient);
  // Throws CommError "no NAME for 60 s" when the deadline has passed.
  void pause();
  // The peer made progress: the deadline starts again.
  void restart();

 private:
  std::function<std::string()> name_;
  std::chrono::milliseconds timeout_;
  Clock::time_point start_;
  Lookout lookout_;
  Pacer pacer_;
};

}  // namespace penstock::comm
