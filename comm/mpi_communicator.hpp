#pragma once

#include <mpi.h>

#include <string>
#include <vector>

#include "comm/world.hpp"

namespace penstock::comm {

// Our own duplicate with MPI_ERRORS_RETURN. Collective. Never freed before MPI_Finalize: MPI would
// give its context to the next duplicate, which would then receive the messages that nobody took
// from this one. A process makes a handful.
MPI_Comm duplicate(MPI_Comm communicator);

// Some ranks of the world, in the order of their ranks: members 0, 1, …
struct MpiGroup {
  MPI_Comm communicator = MPI_COMM_NULL;
  int member = 0;
  std::vector<std::string> names;  // of the members: "rank 5, host n042"
};

MpiGroup whole(const World& world);

// The ranks that give the same `color`, at least 0; those that give MPI_UNDEFINED belong to no
// group, and get a null communicator. Collective over the world. Never freed either.
MpiGroup split(const World& world, int color);

}  // namespace penstock::comm
