#pragma once

#include <unistd.h>

#include <cstddef>
#include <fstream>

#include "model/host_memory.hpp"

namespace penstock::support {

using model::available_memory_bytes;

// What this process holds in memory now.
inline std::size_t resident_memory_bytes() {
  std::ifstream file("/proc/self/statm");
  std::size_t size_pages = 0;
  std::size_t resident_pages = 0;
  file >> size_pages >> resident_pages;
  return resident_pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace penstock::support
