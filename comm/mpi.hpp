#pragma once

#include <cstddef>

#include "comm/link.hpp"
#include "comm/world.hpp"

namespace penstock::comm {

// The endpoint of this rank in one of `pipelines` equal pipelines over all ranks of the world:
// consecutive ranks form a pipeline, so that neighbours are near each other as launchers place
// them. Throws std::invalid_argument if the world cannot be divided so. Collective.
// Messages are cut into pieces of at most `max_piece_bytes`, since MPI counts in int.
Endpoint mpi_endpoint(const World& world, int pipelines = 1,
                      std::size_t max_piece_bytes = std::size_t{1} << 30);

}  // namespace penstock::comm
