#include "comm/nccl_api.hpp"

#include <fmt/format.h>

namespace penstock::comm {

std::string nccl_version_text(int version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace penstock::comm
