#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

#include "io/error.hpp"
#include "io/file.hpp"
#include "io/journal.hpp"
#include "io/journal_row.hpp"
#include "io/output_file.hpp"

namespace penstock::io {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kWriteBytes = 1u << 20;  // at a time, so that a slow disk is seen to move
constexpr std::size_t kReadBytes = 1u << 20;

// Where the last whole line ends.
std::uint64_t end_of_whole_lines(const std::string& path, std::uint64_t size) {
  const File file(path);
  std::string part;
  for (std::uint64_t end = size; end > 0;) {
    const std::uint64_t begin = end - std::min<std::uint64_t>(end, kReadBytes);
    part.resize(static_cast<std::size_t>(end - begin));
    file.read_at(begin, std::as_writable_bytes(std::span(part)));
    const std::size_t newline = part.rfind('\n');
    if (newline != std::string::npos) return begin + newline + 1;
    end = begin;
  }
  return 0;
}

// Threads that are made meanwhile take no signals: those are for the threads that expect them.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

struct Failure {
  int error = 0;
  const char* action = nullptr;
};

}  // namespace

// Shared with the thread, which may be stuck in a dead file system when the writer goes.
struct JournalWriter::State {
  std::string path;
  JournalLimits limits;
  int descriptor = -1;
  std::thread thread;

  std::mutex mutex;  // for all from here on
  std::condition_variable work;
  std::condition_variable done;
  std::string waiting;  // lines that the thread has not taken
  std::size_t waiting_rows = 0;
  std::size_t taken_bytes = 0;  // lines that it has taken and that are not durable yet
  Clock::time_point oldest;     // when the first of `waiting` came
  std::uint64_t appended = 0;   // rows
  std::uint64_t durable = 0;    // rows
  std::uint64_t moved = 0;      // counts what the file system has done for us
  bool urgent = false;
  bool ending = false;
  bool ended = false;
  std::uint64_t failures = 0;
  std::optional<Failure> failure;  // not thrown yet

  bool torn = false;  // the thread's own: the file may end in the middle of a line

  ~State() {
    if (descriptor >= 0) ::close(descriptor);
  }

  void open() {
    descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (descriptor < 0) throw_errno(path, "open");
    struct stat status {};
    if (::fstat(descriptor, &status) != 0) throw_errno(path, "look at");
    if (!S_ISREG(status.st_mode)) return;
    if (status.st_size == 0) return sync_folder_of(path);
    const auto size = static_cast<std::uint64_t>(status.st_size);
    const std::uint64_t end = end_of_whole_lines(path, size);
    if (end < size && ::ftruncate(descriptor, static_cast<off_t>(end)) != 0) {
      throw_errno(path, "cut off a torn row");
    }
  }

  void run() {
    std::unique_lock lock(mutex);
    while (true) {
      wait_for_work(lock);
      urgent = false;
      bool failed = false;
      if (!waiting.empty()) failed = !write_waiting(lock);
      done.notify_all();
      if (ending && (failed || waiting.empty())) break;
    }
    ended = true;
    done.notify_all();
  }

  void wait_for_work(std::unique_lock<std::mutex>& lock) {
    while (!urgent && !ending) {
      if (waiting.empty() || failure) {
        work.wait(lock);
      } else if (waiting_rows >= limits.rows ||
                 work.wait_until(lock, oldest + limits.delay) == std::cv_status::timeout) {
        return;
      }
    }
  }

  bool write_waiting(std::unique_lock<std::mutex>& lock) {
    std::string lines = std::exchange(waiting, {});
    const std::size_t rows = std::exchange(waiting_rows, 0);
    taken_bytes = lines.size();
    lock.unlock();
    const std::optional<Failure> error = write_and_sync(lines);
    lock.lock();
    taken_bytes = 0;
    if (!error) {
      durable += rows;
      failure.reset();
      return true;
    }
    // All of them again: what a failed sync has left on the disk is not known.
    lines += waiting;
    waiting = std::move(lines);
    waiting_rows += rows;
    failure = error;
    ++failures;
    return false;
  }

  // No ftruncate after a failure, since by then the job may have been taken over by another process
  // that appends: the next lines begin with a newline instead.
  std::optional<Failure> write_and_sync(std::string_view lines) {
    if (torn) {
      if (const auto failure_ = write("\n")) return failure_;
    }
    torn = true;
    while (!lines.empty()) {
      const std::string_view part = lines.substr(0, kWriteBytes);
      if (const auto failure_ = write(part)) return failure_;
      lines.remove_prefix(part.size());
    }
    // Pipes and the like cannot be synced.
    if (::fdatasync(descriptor) != 0 && errno != EINVAL) return Failure{errno, "sync"};
    torn = false;
    move();
    return std::nullopt;
  }

  std::optional<Failure> write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return Failure{errno, "write"};
      bytes.remove_prefix(static_cast<std::size_t>(count));
      move();
    }
    return std::nullopt;
  }

  void move() {
    const std::lock_guard lock(mutex);
    ++moved;
  }

  // Waits for the thread; false if the file system has done nothing for limits.patience.
  template <typename Condition>
  bool wait(std::unique_lock<std::mutex>& lock, Condition condition) {
    std::uint64_t seen = moved;
    auto deadline = Clock::now() + limits.patience;
    while (!condition()) {
      const bool late = done.wait_until(lock, deadline) == std::cv_status::timeout;
      if (moved != seen) {
        seen = moved;
        deadline = Clock::now() + limits.patience;
      } else if (late && !condition()) {
        return false;
      }
    }
    return true;
  }

  [[noreturn]] void throw_impatient() const {
    throw FileError(
        path, fmt::format("{} bytes of rows wait to be written, and the file system has taken "
                          "none for {} s",
                          waiting.size() + taken_bytes,
                          static_cast<double>(limits.patience.count()) / 1000));
  }

  void throw_failure() {
    if (!failure) return;
    const Failure thrown = *std::exchange(failure, std::nullopt);
    errno = thrown.error;
    throw_errno(path, thrown.action);
  }
};

JournalWriter::JournalWriter(const std::string& path, const JournalLimits& limits)
    : state_(std::make_shared<State>()) {
  state_->path = path;
  state_->limits = limits;
  state_->open();
  const SignalsBlocked blocked;
  state_->thread = std::thread([state = state_] { state->run(); });
}

JournalWriter::~JournalWriter() {
  std::unique_lock lock(state_->mutex);
  state_->ending = true;
  state_->work.notify_one();
  const bool ended = state_->wait(lock, [&] { return state_->ended; });
  lock.unlock();
  if (ended) {
    state_->thread.join();
  } else {
    state_->thread.detach();
  }
}

void JournalWriter::append(std::uint64_t index, std::string_view row) {
  if (row.size() > kMaxRowBytes) {
    throw FileError(state_->path, fmt::format("the row of record {} has {} bytes, the most is {}",
                                              index, row.size(), kMaxRowBytes));
  }
  if (is_partial_row(row)) throw std::invalid_argument("a row that looks like a partial one");
  if (row_index(row) != index) {
    throw std::invalid_argument(fmt::format("the row of record {} has another index", index));
  }
  append_line(to_journal_line(row));
}

void JournalWriter::append_partial(std::uint64_t index, std::span<const std::int32_t> tokens) {
  const std::string row = to_partial_row(index, tokens);
  if (row.size() > kMaxRowBytes) {
    throw FileError(state_->path, fmt::format("the partial row of record {} has {} tokens", index,
                                              tokens.size()));
  }
  append_line(to_journal_line(row));
}

void JournalWriter::append_line(std::string_view line) {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  const auto has_room = [&] {
    return state.waiting.size() + state.taken_bytes <= state.limits.waiting_bytes;
  };
  if (!state.failure && !has_room()) {
    state.urgent = true;
    state.work.notify_one();
    if (!state.wait(lock, [&] { return state.failure || has_room(); })) state.throw_impatient();
  }
  state.throw_failure();
  if (state.waiting.empty()) state.oldest = Clock::now();
  state.waiting += line;
  ++state.waiting_rows;
  ++state.appended;
  state.work.notify_one();
}

void JournalWriter::sync() {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  state.throw_failure();
  const std::uint64_t target = state.appended;
  const std::uint64_t failures = state.failures;
  if (state.durable >= target) return;
  state.urgent = true;
  state.work.notify_one();
  const bool moved =
      state.wait(lock, [&] { return state.durable >= target || state.failures != failures; });
  if (!moved) state.throw_impatient();
  if (state.durable >= target) return;
  state.throw_failure();
  throw FileError(state.path, "cannot be written");  // another thread has thrown the reason
}

void JournalWriter::abandon() noexcept {
  const std::lock_guard lock(state_->mutex);
  state_->waiting.clear();
  state_->waiting_rows = 0;
}

void JournalWriter::hurry() noexcept {
  const std::lock_guard lock(state_->mutex);
  state_->urgent = true;
  state_->work.notify_one();
}

}  // namespace penstock::io
