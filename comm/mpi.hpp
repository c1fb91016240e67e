#pragma once

#include <cstddef>

#include "comm/link.hpp"
#include "comm/world.hpp"

namespace penstock::comm {

// The endpoint of this rank in a pipeline over all ranks of the world: stage = rank. Collective.
// Messages are cut into pieces of at most `max_piece_bytes`, since MPI counts in int.
Endpoint mpi_endpoint(const World& world, std::size_t max_piece_bytes = std::size_t{1} << 30);

}  // namespace penstock::comm
