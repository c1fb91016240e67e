#include "comm/device/gpu.hpp"

#include <fmt/format.h>

namespace penstock::comm::device {

std::string describe(const Gpu& gpu) {
  return fmt::format("{}, {}, compute capability {}.{}, {:.1f} GiB", gpu.name, gpu.uuid, gpu.major,
                     gpu.minor, static_cast<double>(gpu.memory_bytes) / (1U << 30U));
}

std::string uuid_text(std::string_view name, const std::array<unsigned char, 16>& uuid) {
  std::string text = name.find(" MIG ") == std::string_view::npos ? "GPU" : "MIG";
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", uuid[i]);
  }
  return text;
}

std::string cuda_version_text(int version) {
  if (version <= 0) return "none";
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace penstock::comm::device
