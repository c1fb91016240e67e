#include "comm/mpi.hpp"

#include <fmt/format.h>

#include <limits>
#include <memory>
#include <stdexcept>

#include "comm/mpi_communicator.hpp"
#include "comm/mpi_control.hpp"
#include "comm/mpi_link.hpp"

namespace penstock::comm {
namespace {

// The links of a pipeline of its own ranks.
void add_links(Endpoint& endpoint, const MpiGroup& pipeline, std::size_t max_piece_bytes) {
  // All edges share a communicator: an edge is the only traffic between its two ranks, and MPI
  // keeps the order of messages between two ranks.
  const MPI_Comm links = duplicate(pipeline.communicator);
  const int member = pipeline.member;
  const auto edge_to = [&](int peer) {
    return MpiEdge{links, peer, endpoint.control->describe(peer), max_piece_bytes};
  };
  if (member > 0) endpoint.previous = std::make_unique<MpiReceiver>(edge_to(member - 1));
  if (member + 1 < endpoint.control->size()) {
    endpoint.next = std::make_unique<MpiSender>(edge_to(member + 1));
  }
}

}  // namespace

Endpoint mpi_endpoint(const World& world, int pipelines, std::size_t max_piece_bytes) {
  if (max_piece_bytes == 0 ||
      max_piece_bytes > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw std::invalid_argument(
        fmt::format("comm: pieces of {} bytes; MPI takes 1 to 2147483647", max_piece_bytes));
  }
  if (pipelines < 1 || world.size() % pipelines != 0) {
    throw std::invalid_argument(
        fmt::format("comm: {} ranks cannot be {} equal pipelines", world.size(), pipelines));
  }
  Endpoint endpoint;
  endpoint.pipelines = pipelines;
  if (pipelines == 1) {
    const MpiGroup all = whole(world);
    endpoint.control = std::make_unique<MpiControl>(all);
    add_links(endpoint, all, max_piece_bytes);
    return endpoint;
  }
  const int stages = world.size() / pipelines;
  endpoint.pipeline = world.rank() / stages;
  const MpiGroup pipeline = split(world, endpoint.pipeline);
  const MpiGroup firsts = split(world, world.rank() % stages == 0 ? 0 : MPI_UNDEFINED);
  endpoint.everyone = std::make_unique<MpiControl>(whole(world));
  if (firsts.communicator != MPI_COMM_NULL) endpoint.firsts = std::make_unique<MpiControl>(firsts);
  endpoint.control = std::make_unique<MpiControl>(pipeline);
  add_links(endpoint, pipeline, max_piece_bytes);
  return endpoint;
}

}  // namespace penstock::comm
