#include "comm/mpi_communicator.hpp"

#include "comm/world.hpp"

namespace penstock::comm {

MPI_Comm duplicate(MPI_Comm communicator) {
  MPI_Comm copy = MPI_COMM_NULL;
  PENSTOCK_MPI(MPI_Comm_dup(communicator, &copy));
  PENSTOCK_MPI(MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN));
  return copy;
}

}  // namespace penstock::comm
