#include "comm/device/gpu.hpp"

#include <fmt/format.h>

namespace penstock::comm::device {

std::string describe(const Gpu& gpu) {
  return fmt::format("{}, {}, compute capability {}.{}, {:.1f} GiB", gpu.name, gpu.uuid, gpu.major,
                     gpu.minor, static_cast<double>(gpu.memory_bytes) / (1U << 30U));
}

std::string cuda_version_text(int version) {
  if (version <= 0) return "none";
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace penstock::comm::device
