#include "comm/mpi.hpp"

#include <fmt/format.h>

#include <limits>
#include <memory>
#include <stdexcept>

#include "comm/mpi_communicator.hpp"
#include "comm/mpi_control.hpp"
#include "comm/mpi_link.hpp"

namespace penstock::comm {

Endpoint mpi_endpoint(const World& world, std::size_t max_piece_bytes) {
  if (max_piece_bytes == 0 ||
      max_piece_bytes > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw std::invalid_argument(
        fmt::format("comm: pieces of {} bytes; MPI takes 1 to 2147483647", max_piece_bytes));
  }
  Endpoint endpoint;
  endpoint.control = std::make_unique<MpiControl>(world);
  // All edges share a communicator: an edge is the only traffic between its two ranks, and MPI
  // keeps the order of messages between two ranks.
  const MPI_Comm links = duplicate(world.communicator());
  const auto edge_to = [&](int peer) {
    return MpiEdge{links, peer, endpoint.control->describe(peer), max_piece_bytes};
  };
  if (world.rank() > 0)
    endpoint.previous = std::make_unique<MpiReceiver>(edge_to(world.rank() - 1));
  if (world.rank() + 1 < world.size()) {
    endpoint.next = std::make_unique<MpiSender>(edge_to(world.rank() + 1));
  }
  return endpoint;
}

}  // namespace penstock::comm
