#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::jobs {

// A process, as its lock names it. Empty strings: unknown, or not in a Slurm job.
struct LockHolder {
  std::string host;
  std::string boot_id;        // of the kernel: /proc/sys/kernel/random/boot_id
  std::string pid_namespace;  // "pid:[4026531836]": where the pid means this process
  std::int64_t pid = 0;
  std::uint64_t start_time = 0;  // of the process, field 22 of /proc/PID/stat
  std::uint64_t user = 0;
  std::string slurm_cluster;
  std::string slurm_job_id;  // digits
  std::uint64_t slurm_restart_count = 0;
};

LockHolder this_process();

// What the file holds: one JSON object of a fixed size, so that the counter is moved in place.
struct LockContent {
  LockHolder holder;
  std::string token;  // random: whose lock it is, beyond doubt
  std::uint64_t counter = 0;
};

std::string to_text(const LockContent& content);
// Nothing for bytes that are no lock of ours; a lock being written may also read so.
std::optional<LockContent> parse_lock(std::string_view bytes);

enum class HolderFate {
  alive,    // its process is there, on this very machine
  gone,     // for sure
  unknown,  // on another machine, or nobody can tell
};

// What can be told of another process without waiting for its counter:
// - same boot of a kernel and same pid namespace: whether that process, started at that time, is
//   there and no zombie;
// - same host name, other boot: gone ("localhost" is no host name);
// - our own Slurm job (same cluster), restarted since: gone;
// Strings in `holder` come from a file and are not trusted.
HolderFate fate_of(const LockHolder& holder, const LockHolder& self);

// What Slurm tells of another job of our cluster and user (others' jobs may be hidden from us):
// asks squeue, where it is installed, for up to ten seconds. Never alive.
HolderFate ask_slurm(const LockHolder& holder, const LockHolder& self);

// What `squeue -h -j ID -o "%A %T"` tells of the job's processes; it prints all tasks of an array.
HolderFate fate_from_squeue(std::string_view id, int exit_status, std::string_view out,
                            std::string_view err);

// "host n041, process 123, Slurm job 77", fit for a terminal.
std::string describe(const LockHolder& holder);

}  // namespace penstock::jobs
