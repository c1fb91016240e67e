#include "comm/local.hpp"

#include <fmt/format.h>

#include <memory>
#include <stdexcept>

#include "comm/local_control.hpp"
#include "comm/local_link.hpp"

namespace penstock::comm {

std::vector<Endpoint> local_endpoints(int stages, int pipelines) {
  if (stages < 1 || pipelines < 1) {
    throw std::invalid_argument(
        fmt::format("comm: {} local pipelines of {} stages", pipelines, stages));
  }
  const bool several = pipelines > 1;
  const auto everyone = several ? std::make_shared<LocalHub>(stages * pipelines) : nullptr;
  const auto firsts = several ? std::make_shared<LocalHub>(pipelines, 0, stages) : nullptr;
  std::vector<Endpoint> endpoints;
  for (int pipeline = 0; pipeline < pipelines; ++pipeline) {
    const auto hub = std::make_shared<LocalHub>(stages, pipeline * stages);
    for (int i = 0; i < stages; ++i) {
      Endpoint& endpoint = endpoints.emplace_back();
      endpoint.pipeline = pipeline;
      endpoint.pipelines = pipelines;
      endpoint.control = std::make_unique<LocalControl>(hub, i);
      if (i > 0) endpoint.previous = std::make_unique<LocalReceiver>(hub, i);
      if (i + 1 < stages) endpoint.next = std::make_unique<LocalSender>(hub, i);
      if (!several) continue;
      endpoint.everyone = std::make_unique<LocalControl>(everyone, pipeline * stages + i);
      if (i == 0) endpoint.firsts = std::make_unique<LocalControl>(firsts, pipeline);
    }
  }
  return endpoints;
}

}  // namespace penstock::comm
