#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "comm/device/error.hpp"
#include "comm/device/gpu.hpp"

namespace penstock::comm::device {
namespace {

constexpr int kLeastMajor = 8;  // A100: bf16 in the tensor cores, asynchronous copies

Gpu gpu_at(int index) {
  cudaDeviceProp properties{};
  PENSTOCK_CUDA_CALL(cudaGetDeviceProperties(&properties, index));
  Gpu gpu;
  gpu.index = index;
  gpu.name = properties.name;
  // Of a MIG slice it is the slice's own.
  std::array<unsigned char, 16> uuid{};
  static_assert(sizeof uuid == sizeof properties.uuid.bytes);
  std::memcpy(uuid.data(), properties.uuid.bytes, uuid.size());
  gpu.uuid = uuid_text(gpu.name, uuid);
  std::array<char, 32> bus_id{};  // CUDA wants room for 13 characters
  PENSTOCK_CUDA_CALL(cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), index));
  gpu.pci_bus_id = bus_id.data();
  gpu.major = properties.major;
  gpu.minor = properties.minor;
  gpu.multiprocessors = properties.multiProcessorCount;
  gpu.memory_bytes = properties.totalGlobalMem;
  gpu.l2_bytes = static_cast<std::uint64_t>(properties.l2CacheSize);
  return gpu;
}

std::string visible_devices_hint() {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible == nullptr) return "";
  return fmt::format("; CUDA_VISIBLE_DEVICES is '{}'", visible);
}

// Why cudaGetDeviceCount gave none, in its words.
std::string none_text(cudaError_t error, const GpuSurvey& survey) {
  std::string text = fmt::format("no usable GPU: {} ({}, {})", cudaGetErrorString(error),
                                 cudaGetErrorName(error), static_cast<int>(error));
  if (survey.driver_version == 0) {
    text +=
        "; this machine has no NVIDIA driver, or it is not visible here (a container needs the "
        "runtime's GPU option)";
  } else if (survey.driver_version < survey.runtime_version) {
    text += fmt::format("; the driver is good for CUDA {}, this program needs {}",
                        cuda_version_text(survey.driver_version),
                        cuda_version_text(survey.runtime_version));
  }
  return text + visible_devices_hint();
}

}  // namespace

int runtime_version() {
  int version = 0;
  PENSTOCK_CUDA_CALL(cudaRuntimeGetVersion(&version));
  return version;
}

GpuSurvey survey_gpus() {
  GpuSurvey survey;
  survey.runtime_version = runtime_version();
  // Works without a driver, whose version is then 0.
  PENSTOCK_CUDA_CALL(cudaDriverGetVersion(&survey.driver_version));
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    survey.none = none_text(error, survey);
    return survey;
  }
  std::string too_old;
  for (int i = 0; i < count; ++i) {
    Gpu gpu = gpu_at(i);
    if (gpu.major >= kLeastMajor) {
      survey.gpus.push_back(std::move(gpu));
    } else {
      too_old += fmt::format("{}GPU {} is a {} of compute capability {}.{}",
                             too_old.empty() ? "" : ", ", i, gpu.name, gpu.major, gpu.minor);
    }
  }
  if (!survey.gpus.empty()) return survey;
  survey.none = too_old.empty()
                    ? fmt::format("no usable GPU: CUDA counts none{}", visible_devices_hint())
                    : fmt::format("no usable GPU: {}; {}.0 is the least (A100 and later)", too_old,
                                  kLeastMajor);
  return survey;
}

void use_gpu(const Gpu& gpu) {
  try {
    // Since CUDA 12 this also makes the context, where a GPU that another process has alone says
    // so.
    PENSTOCK_CUDA_CALL(cudaSetDevice(gpu.index));
  } catch (const DeviceError& e) {
    throw DeviceError(
        fmt::format("GPU {} ({}) cannot be used: {}", gpu.index, describe(gpu), e.what()));
  }
}

GpuMemory gpu_memory() {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  PENSTOCK_CUDA_CALL(cudaMemGetInfo(&free_bytes, &total_bytes));
  return {free_bytes, total_bytes};
}

}  // namespace penstock::comm::device
