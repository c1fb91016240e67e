#include "comm/topology.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <memory>

#include "comm/cpu_limits.hpp"

namespace penstock::comm {
namespace {

int allowed_cpus() {
  // The kernel refuses a mask smaller than its own, whose size it does not tell.
  for (int cpus = CPU_SETSIZE; cpus <= (1 << 20); cpus *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> mask(
        CPU_ALLOC(cpus), [](cpu_set_t* set) { CPU_FREE(set); });
    const std::size_t size_bytes = CPU_ALLOC_SIZE(cpus);
    if (sched_getaffinity(0, size_bytes, mask.get()) == 0) {
      return std::max(1, CPU_COUNT_S(size_bytes, mask.get()));
    }
    if (errno != EINVAL) break;
  }
  return 1;
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

std::string cpu_name() {
  // x86 has the first line, Arm the last two, both what tells processors of one name apart.
  std::string name = "unknown";
  std::string details;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line) && !line.empty();) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos || colon + 2 > line.size()) continue;
    const std::string field = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    const std::string value = line.substr(colon + 2);
    if (field == "model name") name = value;
    for (const char* detail : {"cpu family", "model", "CPU implementer", "CPU part"}) {
      if (field == detail)
        details += fmt::format("{}{} {}", details.empty() ? "" : ", ", field, value);
    }
  }
  return details.empty() ? name : fmt::format("{} ({})", name, details);
}

CpuPlacement cpu_placement() {
  int node = std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  for (const int limit : {cgroup_cpus("/"), slurm_cpus()}) {
    if (limit > 0) node = std::min(node, limit);
  }
  return {.host = host_name(), .allowed_cpus = allowed_cpus(), .node_cpus = node};
}

int default_threads(const CpuPlacement& placement, int node_ranks) {
  const int share = std::max(1, placement.node_cpus / std::max(1, node_ranks));
  // A mask that is wider than the share is one that ranks have in common: a socket, the node.
  return std::clamp(placement.allowed_cpus, 1, share);
}

std::string binding_warning(const CpuPlacement& placement, int node_ranks) {
  const int share = placement.node_cpus / std::max(1, node_ranks);
  if (placement.allowed_cpus >= share) return {};
  return fmt::format(
      "host {}: this rank is pinned to {} of {} cores, where its share among {} {} is {}; start "
      "with `mpirun --bind-to none` or `mpirun --map-by slot:PE={}`, or with "
      "`srun --cpus-per-task={} --cpu-bind=cores`",
      placement.host, placement.allowed_cpus, placement.node_cpus, node_ranks,
      node_ranks == 1 ? "rank" : "ranks", share, share, share);
}

}  // namespace penstock::comm
