#include "jobs/stop_signals.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace penstock::jobs {
namespace {

// What the handlers need. They get nothing but the signal's number, so this cannot be a member.
struct Handled {
  std::atomic<bool> taken{false};
  std::atomic<StopRequest> request{StopRequest::none};
  std::atomic<int> interrupts{0};
  std::atomic<int> pipe_write{-1};
  std::atomic<int> running{0};  // handlers at work
};
Handled handled;
static_assert(std::atomic<StopRequest>::is_always_lock_free &&
              std::atomic<int>::is_always_lock_free);

void wake() {
  const int pipe = handled.pipe_write.load();
  if (pipe < 0) return;
  // A full pipe is as good: the thread has not read it yet.
  [[maybe_unused]] const ssize_t written = ::write(pipe, "!", 1);
}

void raise_request(StopRequest request) {
  StopRequest before = handled.request.load();
  while (before < request && !handled.request.compare_exchange_weak(before, request)) {
  }
}

StopRequest meaning_of(int signal) {
  if (signal == SIGUSR1 || signal == SIGUSR2) return StopRequest::drain;
  if (signal == SIGTERM) return StopRequest::terminate;
  const int interrupts = handled.interrupts.fetch_add(1) + 1;
  if (interrupts > 2) {
    struct sigaction by_default {};
    by_default.sa_handler = SIG_DFL;
    ::sigaction(SIGINT, &by_default, nullptr);
    ::raise(SIGINT);  // is delivered when this handler returns
  }
  return interrupts == 1 ? StopRequest::terminate : StopRequest::stop_now;
}

}  // namespace

// Async-signal-safe: lock-free atomics, write, sigaction, raise.
extern "C" {
static void penstock_on_stop_signal(int signal) {
  const int error = errno;
  handled.running.fetch_add(1);
  raise_request(meaning_of(signal));
  wake();
  handled.running.fetch_sub(1);
  errno = error;
}
}

StopSignals::StopSignals() {
  if (handled.taken.exchange(true)) {
    throw std::logic_error("StopSignals: there is one already in this process");
  }
  handled.request = StopRequest::none;
  handled.interrupts = 0;
  try {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
      throw std::system_error(errno, std::generic_category(), "StopSignals: cannot make a pipe");
    }
    pipe_read_ = ends[0];
    handled.pipe_write = ends[1];
    if (::fcntl(ends[1], F_SETFL, O_NONBLOCK) != 0) {
      throw std::system_error(errno, std::generic_category(), "StopSignals: cannot set up a pipe");
    }
    // Signals go to other threads: the callback is not to be interrupted.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      thread_ = std::thread([this] { watch(); });
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    take(SIGUSR1);
    take(SIGUSR2);
  } catch (...) {
    end();
    throw;
  }
}

StopSignals::~StopSignals() { end(); }

void StopSignals::take_end_signals() {
  const std::lock_guard lock(mutex_);
  take(SIGTERM);
  struct sigaction present {};
  if (::sigaction(SIGINT, nullptr, &present) == 0 && present.sa_handler == SIG_IGN) return;
  take(SIGINT);
}

void StopSignals::take(int signal) {
  for (const auto& [taken, old] : old_) {
    if (taken == signal) return;
  }
  old_.reserve(old_.size() + 1);  // nothing may fail once the handler is there
  struct sigaction action {};
  struct sigaction old {};
  action.sa_handler = penstock_on_stop_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (::sigaction(signal, &action, &old) != 0) {
    throw std::system_error(errno, std::generic_category(), "StopSignals: cannot take a signal");
  }
  old_.emplace_back(signal, old);
}

StopRequest StopSignals::request() const noexcept { return handled.request.load(); }

void StopSignals::on_request(std::function<void(StopRequest)> callback) {
  {
    const std::lock_guard lock(mutex_);
    callback_ = std::move(callback);
    told_ = StopRequest::none;
  }
  wake();
}

void StopSignals::watch() {
  std::array<char, 64> bytes{};
  for (;;) {
    const ssize_t got = ::read(pipe_read_, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    const std::lock_guard lock(mutex_);
    if (ending_ || got <= 0) return;
    const StopRequest now = request();
    if (now <= told_ || !callback_) continue;
    told_ = now;
    callback_(now);
  }
}

void StopSignals::end() noexcept {
  for (auto taken = old_.rbegin(); taken != old_.rend(); ++taken) {
    ::sigaction(taken->first, &taken->second, nullptr);
  }
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      ending_ = true;
    }
    wake();
    thread_.join();
  }
  const int pipe_write = handled.pipe_write.exchange(-1);
  // A handler may still run on another thread; it must not write to what the number means next.
  while (handled.running.load() != 0) std::this_thread::yield();
  if (pipe_write >= 0) ::close(pipe_write);
  if (pipe_read_ >= 0) ::close(pipe_read_);
  handled.taken = false;
}

}  // namespace penstock::jobs
