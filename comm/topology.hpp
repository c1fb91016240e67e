#pragma once

#include <string>

namespace penstock::comm {

// Where this process may run.
struct CpuPlacement {
  std::string host;
  int allowed_cpus = 0;  // in the affinity mask
  int node_cpus = 0;     // of this machine that the job may use: online, and within the cgroup's
                         // cpuset and cpu quota and Slurm's allocation
};

// This machine's name as its own kernel says it.
std::string host_name();

CpuPlacement cpu_placement();

// What the first processor of this machine is, as the kernel tells it: "AMD EPYC (cpu family 26,
// model 2)". The same on machines of one kind; "unknown" where the kernel tells nothing.
std::string cpu_name();

// Threads for one of `node_ranks` ranks on a node, if the user named none: the cores of its mask,
// but no more than its share of the node, since ranks may have a mask in common. At least 1.
int default_threads(const CpuPlacement& placement, int node_ranks);

// What to tell a user whose rank is pinned to fewer cores than its share of the node; empty if
// all is well. Names the mpirun and srun options that mend it.
std::string binding_warning(const CpuPlacement& placement, int node_ranks);

}  // namespace penstock::comm
