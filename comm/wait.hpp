#pragma once

#include <chrono>
#include <functional>
#include <string>

namespace penstock::comm {

using Clock = std::chrono::steady_clock;

// One polled wait with a deadline and a name. Spins briefly, then yields, then sleeps in growing
// steps of at most 0.2 ms, so that waiting ranks leave the cores to those that work.
//
//   Wait wait([&] { return fmt::format("activations for slot {} from rank {}", …); }, timeout);
//   while (!done()) wait.pause();
class Wait {
 public:
  // `prompt`: only yields in the first second, for a rank with a core of its own that waits for a
  // GPU, whose steps take milliseconds.
  enum class Pace { patient, prompt };

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
  Pace pace_;
  Clock::time_point start_;
  unsigned rounds_ = 0;
};

}  // namespace penstock::comm
