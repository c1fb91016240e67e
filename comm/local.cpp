#include "comm/local.hpp"

#include <fmt/format.h>

#include <memory>
#include <stdexcept>

#include "comm/local_control.hpp"
#include "comm/local_link.hpp"

namespace penstock::comm {

std::vector<Endpoint> local_endpoints(int stages) {
  if (stages < 1) throw std::invalid_argument(fmt::format("comm: {} local stages", stages));
  const auto hub = std::make_shared<LocalHub>(stages);
  std::vector<Endpoint> endpoints(static_cast<std::size_t>(stages));
  for (int i = 0; i < stages; ++i) {
    Endpoint& endpoint = endpoints[static_cast<std::size_t>(i)];
    endpoint.control = std::make_unique<LocalControl>(hub, i);
    if (i > 0) endpoint.previous = std::make_unique<LocalReceiver>(hub, i);
    if (i + 1 < stages) endpoint.next = std::make_unique<LocalSender>(hub, i);
  }
  return endpoints;
}

}  // namespace penstock::comm
