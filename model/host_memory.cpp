#include "model/host_memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace penstock::model {
namespace {

std::optional<std::uint64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // absent, or "max"
}

std::uint64_t field_in(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  std::string key;
  std::uint64_t value = 0;
  while (file >> key >> value) {
    if (key == name) return value;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

std::uint64_t kernel_available() {
  const std::uint64_t kib = field_in("/proc/meminfo", "MemAvailable:");
  return kib == 0 ? std::numeric_limits<std::uint64_t>::max() : kib * 1024;
}

// What a limit leaves, where files that can be dropped from memory do not count as used.
std::uint64_t left(std::uint64_t limit, std::uint64_t used, std::uint64_t droppable) {
  const std::uint64_t held = used - std::min(used, droppable);
  return limit - std::min(limit, held);
}

}  // namespace

std::uint64_t available_memory_bytes() {
  std::uint64_t available = kernel_available();
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find("memory") == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    // A group's parents limit it too; a container may not show the path, only its root.
    for (std::string group = line.substr(second + 1);; group.resize(group.rfind('/'))) {
      if (group == "/") group.clear();
      const std::string folder = root + group + "/memory.";
      const auto limit = number_in(folder + (v2 ? "max" : "limit_in_bytes"));
      const auto used = number_in(folder + (v2 ? "current" : "usage_in_bytes"));
      if (limit && used) {
        const std::uint64_t files =
            field_in(folder + "stat", v2 ? "inactive_file" : "total_inactive_file");
        available = std::min(available, left(*limit, *used, files));
      }
      if (group.empty()) break;
    }
  }
  return available;
}

}  // namespace penstock::model
