#include <fmt/format.h>

#include <memory>
#include <utility>

#include "comm/nccl_link.hpp"
#include "comm/staged_link.hpp"
#include "jobs/agreement.hpp"
#include "jobs/devices.hpp"

namespace penstock::jobs {
namespace {

LinkReport connect_by_nccl(comm::Endpoint& endpoint, const StageDevice& device) {
  comm::NcclOptions options;
  options.gpu_uuid = device.gpu.uuid;
  options.pci_bus_id = device.gpu.pci_bus_id;
  comm::NcclLinks links = comm::connect_nccl(*endpoint.control, comm::make_nccl_api(), options);
  endpoint.previous = std::move(links.previous);
  endpoint.next = std::move(links.next);
  LinkReport report{"nccl", {}, {}};
  for (const comm::NcclEdgeReport& edge : links.edges) {
    report.edges.push_back(comm::describe(edge));
    if (std::string warning = comm::slow_edge_warning(edge); !warning.empty()) {
      report.warnings.push_back(std::move(warning));
    }
  }
  return report;
}

LinkReport connect_by_host(comm::Endpoint& endpoint, const StageDevice& device, std::size_t buffers,
                           std::size_t message_bytes) {
  const comm::Control& control = *endpoint.control;
  const int member = control.member();
  const std::shared_ptr<comm::StagingApi> api = comm::make_staging_api();
  const auto plan = [&](int from) {
    return comm::StagingPlan{
        api, fmt::format("edge from {} to {}", control.describe(from), control.describe(from + 1)),
        buffers, message_bytes};
  };
  agree_on(endpoint, "making buffers for the links", [&] {
    if (endpoint.previous) {
      endpoint.previous =
          std::make_unique<comm::StagedReceiver>(std::move(endpoint.previous), plan(member - 1));
    }
    if (endpoint.next) {
      endpoint.next = std::make_unique<comm::StagedSender>(std::move(endpoint.next), plan(member));
    }
  });
  std::string name = "mpi, by way of host memory";
  if (!device.no_nccl.empty()) name += ", since " + device.no_nccl;
  return {std::move(name), {}, {}};
}

}  // namespace

LinkKind choose_link(const DevicePlan& plan, LinkKind asked, const Layout& layout) {
  if (plan.kind != DeviceKind::cuda) {
    if (asked == LinkKind::nccl) {
      throw UsageError("--link nccl connects GPUs, and this run computes on CPUs: use --link mpi");
    }
    return layout.link;
  }
  // One stage has no edges; what it is called is how it was started.
  if (layout.link == LinkKind::local || asked == LinkKind::mpi) return layout.link;
  if (asked == LinkKind::automatic && !plan.no_nccl.empty()) return layout.link;
  return LinkKind::nccl;
}

LinkReport connect_links(comm::Endpoint& endpoint, const StageDevice& device, std::size_t buffers,
                         std::size_t message_bytes) {
  if (device.kind != DeviceKind::cuda || endpoint.control->size() == 1) {
    return {std::string(to_string(device.link)), {}, {}};
  }
  return device.link == LinkKind::nccl ? connect_by_nccl(endpoint, device)
                                       : connect_by_host(endpoint, device, buffers, message_bytes);
}

}  // namespace penstock::jobs
