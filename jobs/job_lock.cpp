#include "jobs/job_lock.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <csignal>
#include <exception>
#include <optional>
#include <random>
#include <utility>

#include "io/error.hpp"

namespace penstock::jobs {
namespace {

using comm::Clock;
using std::chrono::milliseconds;

std::string random_token() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

std::string who(const std::optional<LockContent>& lock) {
  return lock ? describe(lock->holder) : "its file `lock` does not say whose";
}

}  // namespace

JobLock::JobLock(const std::string& folder, Tell tell, LockTiming timing)
    : path_(folder), timing_(timing), file_(folder), self_(this_process()), token_(random_token()) {
  acquire(tell);
  looked_ = Clock::now().time_since_epoch().count();
  // Signals go to other threads, whose system calls the program knows.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { keep(); });
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    release();
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

JobLock::~JobLock() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  thread_.join();
  release();
}

void JobLock::release() noexcept {
  try {
    const std::optional<LockFile::Content> present = file_.read();
    if (present && is_mine(present->bytes)) file_.remove(*present);
  } catch (const std::exception&) {
    // It is stale in a minute, or at once when this process has ended.
  }
}

bool JobLock::is_mine(std::string_view bytes) const {
  const auto lock = parse_lock(bytes);
  return lock && lock->token == token_;
}

void JobLock::acquire(const Tell& tell) {
  const std::string bytes = to_text({self_, token_, 0});
  Tell once = [told = false, &tell](std::string_view text) mutable {
    if (!std::exchange(told, true) && tell) tell(text);
  };
  for (;;) {
    if (file_.create(bytes)) return;
    const std::optional<LockFile::Content> seen = file_.read();
    if (!seen) {
      std::this_thread::sleep_for(timing_.poll);
      continue;
    }
    if (is_mine(seen->bytes)) return;
    await_end_of(*seen, once);
    if (file_.replace(*seen, bytes)) return;
    std::this_thread::sleep_for(timing_.poll);  // another newcomer is at it
  }
}

void JobLock::await_end_of(const LockFile::Content& seen, const Tell& tell) const {
  const std::optional<LockContent> lock = parse_lock(seen.bytes);
  const auto is_gone = [&](bool ask) {
    return lock && (fate_of(lock->holder, self_) == HolderFate::gone ||
                    (ask && ask_slurm(lock->holder, self_) == HolderFate::gone));
  };
  if (is_gone(true)) return;

  const Clock::time_point start = Clock::now();
  const std::chrono::nanoseconds age(file_.server_time_ns() - seen.mtime_ns);
  milliseconds wait = timing_.stale;
  if (age > timing_.stale) wait = std::min(wait, timing_.refresh * 3 / 2);
  tell(
      fmt::format("{}: another job may be at work on it ({}); looking for up to {} s whether it is",
                  path_, who(lock), std::chrono::ceil<std::chrono::seconds>(wait).count()));
  Clock::time_point asked = start;
  for (;;) {
    const Clock::time_point now = Clock::now();
    // The look comes after the clock: after a stop of this very process, too, what is there counts.
    const std::optional<LockFile::Content> there = file_.read();
    if (!there) return;
    const bool ask = now - asked >= timing_.refresh;
    if (ask) asked = now;
    if (is_gone(ask)) return;
    if (*there != seen) {
      throw io::FileError(
          path_, fmt::format("another job works on it: {}; wait for it, or choose another --output",
                             who(parse_lock(there->bytes))));
    }
    if (now - start >= wait) return;
    std::this_thread::sleep_for(timing_.poll);
  }
}

bool JobLock::lost() const noexcept {
  if (!lost_) {
    const Clock::time_point looked{Clock::duration(looked_.load())};
    if (Clock::now() - looked >= 2 * timing_.refresh) {
      // A thread that is at it already may hang with the file system; the caller is not to.
      const std::unique_lock lock(file_mutex_, std::try_to_lock);
      if (lock) look();
    }
  }
  return lost_;
}

void JobLock::look() const noexcept {
  looked_ = Clock::now().time_since_epoch().count();
  try {
    const std::optional<LockFile::Content> there = file_.read();
    if (!there || !is_mine(there->bytes)) lost_ = true;
  } catch (const std::exception&) {
    // A file system that does not answer says nothing about the lock.
  }
}

void JobLock::check() const {
  {
    const std::lock_guard lock(file_mutex_);
    look();
  }
  if (!lost_) return;
  throw io::FileError(path_,
                      "another job took over the lock, or it was removed, while this process was "
                      "stopped or could not write for a minute; this run ends without touching "
                      "the output");
}

void JobLock::keep() noexcept {
  std::uint64_t counter = 0;
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, timing_.refresh, [this] { return ending_; })) {
    lock.unlock();
    {
      const std::lock_guard file_lock(file_mutex_);
      try {
        const std::string bytes = to_text({self_, token_, ++counter});
        if (!file_.update(bytes, [this](std::string_view there) { return is_mine(there); })) {
          lost_ = true;
        }
      } catch (const std::exception&) {
        // The next refresh may do better.
      }
      looked_ = Clock::now().time_since_epoch().count();
    }
    lock.lock();
  }
}

}  // namespace penstock::jobs
