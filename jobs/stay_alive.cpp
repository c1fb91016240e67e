#include "jobs/stay_alive.hpp"

#include <atomic>
#include <chrono>
#include <future>

namespace penstock::jobs {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kInterval{500};
// A parallel file system may fail over in the middle of a call.
constexpr std::chrono::minutes kPatience{10};

}  // namespace

void stay_alive(const Alive& alive, const std::function<void(const Alive& moved)>& work) {
  std::atomic<std::uint64_t> done{0};
  std::future<void> end =
      std::async(std::launch::async, [&] { work([&done](std::uint64_t more) { done += more; }); });
  std::uint64_t seen = 0;
  Clock::time_point moved = Clock::now();
  while (end.wait_for(kInterval) != std::future_status::ready) {
    const Clock::time_point now = Clock::now();
    if (const std::uint64_t present = done; present != seen) {
      seen = present;
      moved = now;
    }
    alive(now - moved < kPatience ? 1 : 0);
  }
  end.get();
}

}  // namespace penstock::jobs
