#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "comm/device/gpu.hpp"
#include "comm/device/gpu_choice.hpp"
#include "comm/link.hpp"
#include "jobs/launch.hpp"

// Where the stages of a pipeline compute, and over which links they talk.
namespace penstock::jobs {

enum class DeviceKind { automatic, cpu, cuda, virtual_device };
std::string_view to_string(DeviceKind kind);

// Throws UsageError for what can never be, whatever GPUs there are.
void check_device(DeviceKind device, LinkKind link, const Layout& layout);

// What one rank has.
struct DeviceOffer {
  std::string name;  // "rank 5, host n042"
  comm::device::VisibleGpus visible;
  std::string none;                    // why it has no GPU
  std::vector<std::string> bus_ids{};  // of the visible GPUs, in their order
  int replica = 0;                     // that the rank belongs to
};

// The same on all ranks. The stages of all replicas compute on devices of one kind, since answers
// would else depend on the layout.
struct DevicePlan {
  DeviceKind kind = DeviceKind::cpu;          // never automatic
  std::vector<comm::device::GpuChoice> gpus;  // of each rank; empty on CPUs
  std::string note;                           // why `auto` took no GPU
  std::string no_nccl;                        // why NCCL cannot connect the ranks; empty if it can
};

// Pure. `auto` takes GPUs where every rank has one, CPUs where none has; where only some have, and
// where `cuda` lacks one, it throws UsageError with the driver's words. Not of virtual devices.
DevicePlan plan_devices(DeviceKind asked, const std::vector<DeviceOffer>& offers);

// What one stage computes on.
struct StageDevice {
  DeviceKind kind = DeviceKind::cpu;
  comm::device::Gpu gpu;            // on a GPU
  int sharers = 1;                  // stages that have this GPU
  LinkKind link = LinkKind::local;  // between the stages, never automatic
  std::string note;                 // for the header: why `auto` took no GPU
  std::string no_nccl;              // the same: why `auto` did not take NCCL
};

// Agrees on the devices and, on GPUs, makes this stage's the thread's current one. Collective over
// all replicas: all throw comm::AgreeError or UsageError if it fails anywhere.
StageDevice take_device(comm::Endpoint& endpoint, DeviceKind asked, LinkKind asked_link,
                        const Layout& layout);

// The link between stages: `asked`, or for auto NCCL between GPUs that it can connect, else MPI
// between ranks, local between threads. Throws UsageError for NCCL between CPUs. NCCL between GPUs
// that it cannot connect is left to connect_links(), since NCCL_HOSTID may allow it.
LinkKind choose_link(const DevicePlan& plan, LinkKind asked, const Layout& layout);

// What the header says about the links, and what is wrong with them.
struct LinkReport {
  std::string name;                // "nccl", "mpi, by way of host memory, since …"
  std::vector<std::string> edges;  // a line for each whose speed is known
  std::vector<std::string> warnings;
};

// Replaces the links of an endpoint by such as move GPU memory, where the stage is on a GPU.
// `buffers` messages of at most `message_bytes` are under way at once. Collective; throws
// comm::AgreeError on all members if it fails anywhere.
LinkReport connect_links(comm::Endpoint& endpoint, const StageDevice& device, std::size_t buffers,
                         std::size_t message_bytes);

}  // namespace penstock::jobs
