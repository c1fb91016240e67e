#include "comm/cpu_limits.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace penstock::comm {
namespace {

constexpr long kMostCpus = 1 << 20;

// -1 unless the text is a whole number.
long parse_count(std::string_view text) {
  long value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) return -1;
  return value;
}

std::string first_line(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

// The smaller one, where 0 means no limit.
int narrower(int a, int b) {
  if (a == 0 || b == 0) return std::max(a, b);
  return std::min(a, b);
}

// A quota of one and a half cores is two threads that are sometimes stopped.
int quota_cpus(std::string_view quota, std::string_view period) {
  const long quota_us = parse_count(quota);
  const long period_us = parse_count(period);
  if (quota_us <= 0 || period_us <= 0) return 0;  // "max" in version 2, -1 in version 1
  const long cpus = quota_us / period_us + (quota_us % period_us != 0 ? 1 : 0);
  return static_cast<int>(std::min(cpus, kMostCpus));
}

int limits_in(const std::filesystem::path& group) {
  std::istringstream max(first_line(group / "cpu.max"));
  std::string quota;
  std::string period;
  max >> quota >> period;
  int cpus = quota_cpus(quota, period);
  cpus = narrower(cpus, quota_cpus(first_line(group / "cpu.cfs_quota_us"),
                                   first_line(group / "cpu.cfs_period_us")));
  for (const char* name : {"cpuset.cpus.effective", "cpuset.effective_cpus"}) {
    cpus = narrower(cpus, count_cpu_list(first_line(group / name)));
  }
  return cpus;
}

}  // namespace

int count_cpu_list(std::string_view list) {
  long cpus = 0;
  while (!list.empty()) {
    const std::string_view range = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), range.size() + 1));
    const std::size_t dash = range.find('-');
    const long first = parse_count(range.substr(0, dash));
    const long last = dash == std::string_view::npos ? first : parse_count(range.substr(dash + 1));
    if (first < 0 || last < first || last >= kMostCpus) return 0;
    cpus += last - first + 1;
  }
  return static_cast<int>(std::min(cpus, kMostCpus));
}

int cgroup_cpus(const std::filesystem::path& root) {
  int cpus = 0;
  std::ifstream groups(root / "proc/self/cgroup");
  // Each line is "ID:CONTROLLERS:PATH"; version 2 has no controllers.
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::filesystem::path mount = root / "sys/fs/cgroup" / controllers;
    // In a container the path may be the host's; then only the mount itself is there.
    std::filesystem::path group = std::filesystem::path(line.substr(second + 1)).relative_path();
    for (; !group.empty(); group = group.parent_path()) {
      cpus = narrower(cpus, limits_in(mount / group));
    }
    cpus = narrower(cpus, limits_in(mount));
  }
  return cpus;
}

int slurm_cpus() {
  const char* text = std::getenv("SLURM_CPUS_ON_NODE");
  if (text == nullptr) return 0;
  return static_cast<int>(std::clamp(parse_count(text), 0L, kMostCpus));
}

}  // namespace penstock::comm
