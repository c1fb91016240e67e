#include "comm/wait.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "comm/error.hpp"

namespace penstock::comm {
namespace {

// A message between two cores takes about a microsecond, so a few microseconds of spinning catch
// what is nearly there. Waiting ranks often outnumber the cores, so sleeping starts soon after.
constexpr unsigned kSpinRounds = 20;
constexpr unsigned kYieldRounds = 20;
constexpr unsigned kRelaxesPerRound = 8;
constexpr std::chrono::microseconds kFirstSleep{20};
constexpr std::chrono::microseconds kLongestSleep{200};
// Behind it a sleep's length no longer counts.
constexpr std::chrono::seconds kPromptTime{1};

void relax_cpu() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

void Pacer::pause(Clock::time_point now) {
  if (rounds_ < kSpinRounds) {
    for (unsigned i = 0; i < kRelaxesPerRound; ++i) relax_cpu();
  } else if (rounds_ < kSpinRounds + kYieldRounds) {
    std::this_thread::yield();
    // The counter stays where it is.
    if (pace_ == Pace::prompt && now - start_ < kPromptTime) return;
  } else {
    const unsigned sleeps = rounds_ - kSpinRounds - kYieldRounds;
    std::this_thread::sleep_for(std::min(kLongestSleep, kFirstSleep * (sleeps + 1)));
    // Beyond the longest sleep nothing changes, and the counter must not wrap to spinning.
    if (kFirstSleep * (sleeps + 1) >= kLongestSleep) return;
  }
  ++rounds_;
}

void Pacer::restart(Clock::time_point now) {
  start_ = now;
  rounds_ = 0;
}

Wait::Wait(std::function<std::string()> name, std::chrono::milliseconds timeout, Pace pace)
    : name_(std::move(name)),
      timeout_(timeout),
      start_(Clock::now()),
      lookout_(timeout, start_),
      pacer_(pace, start_) {}

void Wait::pause() {
  const Clock::time_point now = Clock::now();
  lookout_.look(now);
  if (lookout_.age(start_) >= timeout_) {
    const double seconds = std::chrono::duration<double>(timeout_).count();
    throw CommError(fmt::format("no {} for {} s", name_(), seconds));
  }
  pacer_.pause(now);
}

void Wait::restart() {
  start_ = Clock::now();
  pacer_.restart(start_);
}

}  // namespace penstock::comm
