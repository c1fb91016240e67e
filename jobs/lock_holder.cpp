#include "jobs/lock_holder.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/error.hpp"
#include "io/json.hpp"
#include "jobs/command.hpp"

namespace penstock::jobs {
namespace {

constexpr std::chrono::milliseconds kSqueueLimit{10'000};
constexpr std::size_t kMaxText = 255;  // names are compared and shown; none is longer

std::string short_text(std::string text) {
  if (text.size() > kMaxText) text.resize(kMaxText);
  return text;
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : short_text(value);
}

bool is_digits(std::string_view text) {
  return !text.empty() && text.size() <= 18 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  if (is_digits(text)) std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// What /proc/PID/stat says of a process.
struct ProcessStat {
  char state = 0;
  std::uint64_t start_time = 0;
};

std::optional<ProcessStat> stat_of(std::int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  // The second field, the program's name in brackets, may hold anything.
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::string_view rest = std::string_view(text).substr(name_end + 1);
  std::array<std::string_view, 20> fields;  // the third to the twenty-second
  for (std::string_view& field : fields) {
    if (rest.empty() || rest.front() != ' ') return std::nullopt;
    rest.remove_prefix(1);
    field = rest.substr(0, rest.find_first_of(" \n"));
    rest.remove_prefix(field.size());
  }
  if (fields.front().size() != 1) return std::nullopt;
  return ProcessStat{fields.front().front(), number(fields.back())};
}

HolderFate fate_of_process(const LockHolder& holder) {
  if (holder.pid <= 0 || holder.pid > std::numeric_limits<pid_t>::max()) {
    return HolderFate::unknown;
  }
  // Signal 0 is none. It also tells of processes that a hardened /proc hides.
  if (::kill(static_cast<pid_t>(holder.pid), 0) != 0 && errno == ESRCH) return HolderFate::gone;
  const auto there = stat_of(holder.pid);
  if (!there) return HolderFate::unknown;
  if (there->start_time != holder.start_time) return HolderFate::gone;
  return there->state == 'Z' || there->state == 'X' ? HolderFate::gone : HolderFate::alive;
}

bool same(const std::string& ours, const std::string& theirs) {
  return !ours.empty() && ours == theirs;
}

}  // namespace

LockHolder this_process() {
  LockHolder self;
  std::array<char, 256> text{};
  if (::gethostname(text.data(), text.size() - 1) == 0) self.host = text.data();
  std::ifstream("/proc/sys/kernel/random/boot_id") >> self.boot_id;
  const ssize_t length = ::readlink("/proc/self/ns/pid", text.data(), text.size());
  if (length > 0) self.pid_namespace.assign(text.data(), static_cast<std::size_t>(length));
  self.pid = ::getpid();
  if (const auto stat = stat_of(self.pid)) self.start_time = stat->start_time;
  self.user = ::geteuid();
  self.slurm_cluster = variable("SLURM_CLUSTER_NAME");
  self.slurm_job_id = variable("SLURM_JOB_ID");
  self.slurm_restart_count = number(variable("SLURM_RESTART_COUNT"));
  return self;
}

std::string to_text(const LockContent& content) {
  const LockHolder& holder = content.holder;
  const nlohmann::json values = {{"host", holder.host},
                                 {"boot_id", holder.boot_id},
                                 {"pid_namespace", holder.pid_namespace},
                                 {"pid", holder.pid},
                                 {"start_time", holder.start_time},
                                 {"user", holder.user},
                                 {"slurm_cluster", holder.slurm_cluster},
                                 {"slurm_job_id", holder.slurm_job_id},
                                 {"slurm_restart_count", holder.slurm_restart_count},
                                 {"token", content.token}};
  std::string text = values.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.pop_back();
  return text + fmt::format(",\"counter\":{:>20}}}\n", content.counter);
}

std::optional<LockContent> parse_lock(std::string_view bytes) {
  try {
    const nlohmann::json values = io::parse_json(bytes);
    const auto text = [&](const char* name) {
      return short_text(values.at(name).get_ref<const std::string&>());
    };
    // Not get<>(): it makes a number of a fraction or a boolean, and wraps what is too large.
    const auto count = [&](const char* name) {
      return values.at(name).get_ref<const nlohmann::json::number_unsigned_t&>();
    };
    LockContent content;
    content.holder.host = text("host");
    content.holder.boot_id = text("boot_id");
    content.holder.pid_namespace = text("pid_namespace");
    const std::uint64_t pid = count("pid");
    if (pid > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return {};
    content.holder.pid = static_cast<std::int64_t>(pid);
    content.holder.start_time = count("start_time");
    content.holder.user = count("user");
    content.holder.slurm_cluster = text("slurm_cluster");
    content.holder.slurm_job_id = text("slurm_job_id");
    content.holder.slurm_restart_count = count("slurm_restart_count");
    content.token = text("token");
    content.counter = count("counter");
    return content;
  } catch (const io::JsonError&) {
    return std::nullopt;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

HolderFate fate_of(const LockHolder& holder, const LockHolder& self) {
  if (same(self.boot_id, holder.boot_id) && same(self.pid_namespace, holder.pid_namespace)) {
    return fate_of_process(holder);
  }
  if (same(self.host, holder.host) && !self.host.starts_with("localhost") &&
      !self.boot_id.empty() && !holder.boot_id.empty() && self.boot_id != holder.boot_id) {
    return HolderFate::gone;
  }
  if (same(self.slurm_cluster, holder.slurm_cluster) &&
      same(self.slurm_job_id, holder.slurm_job_id) &&
      holder.slurm_restart_count < self.slurm_restart_count) {
    return HolderFate::gone;
  }
  return HolderFate::unknown;
}

HolderFate ask_slurm(const LockHolder& holder, const LockHolder& self) {
  if (!same(self.slurm_cluster, holder.slurm_cluster) || self.user != holder.user ||
      !is_digits(holder.slurm_job_id) || self.slurm_job_id == holder.slurm_job_id) {
    return HolderFate::unknown;
  }
  const auto answer =
      run_command({"squeue", "-h", "-j", holder.slurm_job_id, "-o", "%A %T"}, kSqueueLimit);
  if (!answer) return HolderFate::unknown;
  return fate_from_squeue(holder.slurm_job_id, answer->exit_status, answer->out, answer->err);
}

HolderFate fate_from_squeue(std::string_view id, int exit_status, std::string_view out,
                            std::string_view err) {
  if (exit_status != 0) {
    // Any other failure, such as a controller that does not answer, tells nothing.
    return err.find("Invalid job id specified") != std::string_view::npos ? HolderFate::gone
                                                                          : HolderFate::unknown;
  }
  // Jobs that have ended are not listed, or, for a while, with their last state. One that waits
  // was requeued, so its processes have ended too.
  constexpr std::array<std::string_view, 12> kGone{
      "PENDING",   "COMPLETED", "CANCELLED", "FAILED",   "TIMEOUT",       "PREEMPTED",
      "NODE_FAIL", "BOOT_FAIL", "DEADLINE",  "REQUEUED", "OUT_OF_MEMORY", "SPECIAL_EXIT"};
  while (!out.empty()) {
    const std::string_view line = out.substr(0, out.find('\n'));
    out.remove_prefix(std::min(out.size(), line.size() + 1));
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos) return HolderFate::unknown;
    if (line.substr(0, space) != id) continue;
    const std::string_view state = line.substr(space + 1);
    return std::find(kGone.begin(), kGone.end(), state) != kGone.end() ? HolderFate::gone
                                                                       : HolderFate::unknown;
  }
  return HolderFate::gone;
}

std::string describe(const LockHolder& holder) {
  std::string text = "host " + io::quoted(holder.host) + fmt::format(", process {}", holder.pid);
  if (!holder.slurm_job_id.empty()) text += ", Slurm job " + io::quoted(holder.slurm_job_id);
  return text;
}

}  // namespace penstock::jobs
