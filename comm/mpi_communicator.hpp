#pragma once

#include <mpi.h>

namespace penstock::comm {

// Our own duplicate with MPI_ERRORS_RETURN. Collective. Never freed before MPI_Finalize: MPI would
// give its context to the next duplicate, which would then receive the messages that nobody took
// from this one. A process makes a handful.
MPI_Comm duplicate(MPI_Comm communicator);

}  // namespace penstock::comm
