#include "comm/device/error.hpp"
#include "comm/device/gpu.hpp"

namespace penstock::comm::device {
namespace {

constexpr const char* kNone =
    "no usable GPU: this program was built without CUDA (the preset cuda-release builds it with)";

}  // namespace

int runtime_version() { return 0; }

GpuSurvey survey_gpus() {
  GpuSurvey survey;
  survey.none = kNone;
  return survey;
}

void use_gpu(const Gpu&) { throw DeviceError(kNone); }

GpuMemory gpu_memory() { throw DeviceError(kNone); }

}  // namespace penstock::comm::device
