#include "jobs/command.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

namespace penstock::jobs {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kMaxOutputBytes = 65536;
constexpr int kPollMs = 10;

// A descriptor that closes itself; -1: none.
class Descriptor {
 public:
  explicit Descriptor(int descriptor = -1) : descriptor_(descriptor) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  void reset(int descriptor) {
    close();
    descriptor_ = descriptor;
  }
  void close() {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

struct Pipe {
  Descriptor read;
  Descriptor write;
};

bool open_pipe(Pipe& pipe) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return false;
  pipe.read.reset(ends[0]);
  pipe.write.reset(ends[1]);
  return ::fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0;
}

// Takes what is there; closes the end when nothing more can come.
void take(Descriptor& end, std::string& into) {
  std::array<char, 4096> buffer{};
  while (end.get() >= 0) {
    const ssize_t got = ::read(end.get(), buffer.data(), buffer.size());
    if (got > 0) {
      const std::size_t room = kMaxOutputBytes - into.size();
      into.append(buffer.data(), std::min(room, static_cast<std::size_t>(got)));
    } else if (got < 0 && errno == EINTR) {
      continue;
    } else {
      if (got == 0 || errno != EAGAIN) end.close();
      return;
    }
  }
}

// This process' environment with some variables replaced.
std::vector<std::string> merged_environment(const std::vector<std::string>& ours) {
  std::vector<std::string> all = ours;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    const bool replaced = std::any_of(ours.begin(), ours.end(), [&](const std::string& own) {
      return own.size() > name.size() && own[name.size()] == '=' && own.starts_with(name);
    });
    if (!replaced) all.emplace_back(text);
  }
  return all;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// The child's id; 0: it cannot be started. It leads a process group of its own, so that what it
// starts can be ended with it, and an interrupt typed at a terminal does not reach it.
pid_t spawn(std::vector<std::string> arguments, std::vector<std::string> environment, int out,
            int err) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (posix_spawn_file_actions_init(&actions) != 0) return 0;
  if (posix_spawnattr_init(&attributes) != 0) {
    posix_spawn_file_actions_destroy(&actions);
    return 0;
  }
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  const bool prepared =
      posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0) == 0 &&
      posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO) == 0 &&
      posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO) == 0 &&
      posix_spawnattr_setsigmask(&attributes, &none) == 0 &&
      posix_spawnattr_setsigdefault(&attributes, &all) == 0 &&
      posix_spawnattr_setpgroup(&attributes, 0) == 0 &&
      posix_spawnattr_setflags(
          &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP) == 0;
  pid_t child = 0;
  const bool spawned =
      prepared && posix_spawnp(&child, arguments.front().c_str(), &actions, &attributes,
                               pointers(arguments).data(), pointers(environment).data()) == 0;
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return spawned ? child : 0;
}

}  // namespace

std::optional<CommandResult> run_command(const std::vector<std::string>& arguments,
                                         std::chrono::milliseconds limit,
                                         const std::vector<std::string>& environment) {
  const Clock::time_point deadline = Clock::now() + limit;
  Pipe out;
  Pipe err;
  if (arguments.empty() || !open_pipe(out) || !open_pipe(err)) return std::nullopt;
  const pid_t child =
      spawn(arguments, merged_environment(environment), out.write.get(), err.write.get());
  if (child == 0) return std::nullopt;
  out.write.close();
  err.write.close();

  CommandResult result;
  for (;;) {
    std::array<pollfd, 2> ends{{{out.read.get(), POLLIN, 0}, {err.read.get(), POLLIN, 0}}};
    ::poll(ends.data(), ends.size(), kPollMs);
    // Before reading, so that nothing of a process that has ended is missed.
    int status = 0;
    const pid_t ended = ::waitpid(child, &status, WNOHANG);
    take(out.read, result.out);
    take(err.read, result.err);
    if (ended == child) {
      if (!WIFEXITED(status)) return std::nullopt;
      result.exit_status = WEXITSTATUS(status);
      return result;
    }
    if (ended < 0 && errno != EINTR) return std::nullopt;  // somebody else waited for it
    if (Clock::now() >= deadline) {
      ::kill(-child, SIGKILL);
      while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
      }
      return std::nullopt;
    }
  }
}

}  // namespace penstock::jobs
