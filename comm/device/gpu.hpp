#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::comm::device {

struct Gpu {
  int index = 0;  // CUDA's, among those that this process sees (CUDA_VISIBLE_DEVICES)
  std::string name;
  std::string uuid;        // "GPU-6e3b…", of a MIG slice "MIG-6e3b…", as nvidia-smi writes it
  std::string pci_bus_id;  // the same for all MIG slices of a card
  int major = 0;           // compute capability
  int minor = 0;
  int multiprocessors = 0;
  std::uint64_t memory_bytes = 0;
  std::uint64_t l2_bytes = 0;
};

// What this process can use. Versions are CUDA's numbers, 1000 × major + 10 × minor; 0: none.
struct GpuSurvey {
  std::vector<Gpu> gpus;  // of compute capability 8.0 and more
  std::string none;       // where there are none: why, in the driver's words, and what to do
  int driver_version = 0;
  int runtime_version = 0;
};

// CUDA's runtime library; 0: the program was built without CUDA. Needs no driver.
int runtime_version();

// Never throws for want of a GPU or a driver. Reserves nothing on the GPUs.
GpuSurvey survey_gpus();

// What follows on this thread happens on that GPU. Throws DeviceError when it cannot be had, for
// example since another process has it alone.
void use_gpu(const Gpu& gpu);

// Of the thread's current GPU.
struct GpuMemory {
  std::uint64_t free_bytes = 0;
  std::uint64_t total_bytes = 0;
};
GpuMemory gpu_memory();

// "NVIDIA H100 80GB HBM3, GPU-6e3b…, compute capability 9.0, 79.6 GiB"
std::string describe(const Gpu& gpu);
// `name` tells MIG slices, which it ends in: "NVIDIA A100-SXM4-40GB MIG 1g.5gb".
std::string uuid_text(std::string_view name, const std::array<unsigned char, 16>& uuid);
// "13.0"; "none" for 0.
std::string cuda_version_text(int version);

}  // namespace penstock::comm::device
