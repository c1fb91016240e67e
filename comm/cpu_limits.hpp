#pragma once

#include <filesystem>
#include <string_view>

namespace penstock::comm {

// What a process may use of this machine's cores besides its affinity mask. 0: no limit known.

// Cores that the process's cgroup gives it: the smaller of its cpuset and its cpu quota, also where
// a parent group is narrower. Versions 1 and 2; `root` is where the machine's files are ("/").
// Format: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/cpusets.rst of the kernel.
int cgroup_cpus(const std::filesystem::path& root);

// Cores that Slurm gave the job on this machine (SLURM_CPUS_ON_NODE).
int slurm_cpus();

// Cores in a list such as "0-3,8"; 0 if it is none.
int count_cpu_list(std::string_view list);

}  // namespace penstock::comm
