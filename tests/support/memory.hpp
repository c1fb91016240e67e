#pragma once

#include <cstddef>
#include <fstream>
#include <string>

namespace penstock::support {

// What the machine can still give, in bytes; 0 if it does not say.
inline std::size_t available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  std::size_t kilobytes = 0;
  std::string unit;
  while (file >> key >> kilobytes) {
    std::getline(file, unit);
    if (key == "MemAvailable:") return kilobytes * 1024;
  }
  return 0;
}

}  // namespace penstock::support
