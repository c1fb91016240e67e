#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/control.hpp"
#include "comm/link.hpp"
#include "comm/nccl_api.hpp"

namespace penstock::comm {

// NCCL's restrictions, and how the link lives with them, stand in comm/README.md.

// What NCCL tells hosts apart by: the environment's NCCL_HOSTID, where it is set, or the host's
// name.
std::string nccl_host_id();

struct NcclOptions {
  std::string gpu_uuid;    // of this thread's current GPU
  std::string pci_bus_id;  // likewise
  std::string host_id = nccl_host_id();
  std::chrono::milliseconds setup_timeout{120000};  // a communicator, a message of the warm-up
  std::chrono::milliseconds stall_timeout{60000};   // an operation that does not go forward
  std::chrono::milliseconds close_timeout{10000};   // the other end, when links are destroyed
  std::size_t warm_up_bytes = std::size_t{64} << 20U;
};

// What the warm-up of an edge measured.
struct NcclEdgeReport {
  int from = 0;              // member; the edge goes to the next one
  double bytes_per_s = 0.0;  // large messages
  double hop_us = 0.0;       // small ones
};

// "edge 2 to 3: NCCL, 181.2 GB/s, 14 us a hop". NCCL has no call that tells which transport it
// uses.
std::string describe(const NcclEdgeReport& report);
// For an edge so slow that NCCL probably uses TCP sockets, or an empty text.
std::string slow_edge_warning(const NcclEdgeReport& report);

struct NcclLinks {
  std::unique_ptr<LinkReceiver> previous;  // null at the ends of the pipeline
  std::unique_ptr<LinkSender> next;
  std::vector<NcclEdgeReport> edges;  // [size - 1], the same on all members
};

// Links for GPU memory between the members of `control`, each with a current GPU of its own.
// Collective; polls. Communicators are made and warmed up for all even edges at once, then for all
// odd ones, so that a rank is busy with one at a time. When it fails anywhere, all members throw
// AgreeError. Transfers throw CommError, which names the edge, the operation and the time waited.
// The links are used and destroyed by the calling thread, its current GPU unchanged.
NcclLinks connect_nccl(Control& control, std::shared_ptr<NcclApi> api, const NcclOptions& options);

// What every member says of itself before the first communicator is made.
struct NcclAnnouncement {
  NcclId id{};  // of the edge to the next member
  int version = 0;
  std::string gpu_uuid;
  std::string pci_bus_id;
  std::string host_id;
  std::string error;  // why there is no id
};

// Why these members (names in `members`) cannot be connected; empty if they can.
std::string nccl_refusal(const std::vector<NcclAnnouncement>& announcements,
                         const std::vector<std::string>& members);

}  // namespace penstock::comm
