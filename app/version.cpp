#include <fmt/format.h>

#include "app/commands.hpp"
#include "comm/device/gpu.hpp"
#include "comm/nccl_api.hpp"

namespace penstock::app {

std::string version() { return "penstock " PENSTOCK_VERSION; }

std::string version_text() {
  std::string text = version();
  if (const int cuda = comm::device::runtime_version(); cuda > 0) {
    text += fmt::format("\nCUDA {}", comm::device::cuda_version_text(cuda));
  }
  if (const std::unique_ptr<comm::NcclApi> nccl = comm::make_nccl_api()) {
    int number = 0;
    if (nccl->get_version(number) == comm::NcclResult::success) {
      text += fmt::format(", NCCL {}", comm::nccl_version_text(number));
    }
  }
  return text;
}

}  // namespace penstock::app
