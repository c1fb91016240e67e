#include "comm/mpi_communicator.hpp"

#include <fmt/format.h>

#include <numeric>

namespace penstock::comm {
namespace {

std::string name_of(const World& world, int rank) {
  return fmt::format("rank {}, host {}", rank, world.host(rank));
}

// The ranks in the world of the members of one of its groups.
std::vector<int> world_ranks(const World& world, MPI_Comm communicator, int size) {
  std::vector<int> members(static_cast<std::size_t>(size));
  std::iota(members.begin(), members.end(), 0);
  std::vector<int> ranks(members.size());
  MPI_Group ours = MPI_GROUP_NULL;
  MPI_Group all = MPI_GROUP_NULL;
  PENSTOCK_MPI(MPI_Comm_group(communicator, &ours));
  PENSTOCK_MPI(MPI_Comm_group(world.communicator(), &all));
  PENSTOCK_MPI(MPI_Group_translate_ranks(ours, size, members.data(), all, ranks.data()));
  PENSTOCK_MPI(MPI_Group_free(&ours));
  PENSTOCK_MPI(MPI_Group_free(&all));
  return ranks;
}

}  // namespace

MPI_Comm duplicate(MPI_Comm communicator) {
  MPI_Comm copy = MPI_COMM_NULL;
  PENSTOCK_MPI(MPI_Comm_dup(communicator, &copy));
  PENSTOCK_MPI(MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN));
  return copy;
}

MpiGroup whole(const World& world) {
  MpiGroup group{world.communicator(), world.rank(), {}};
  for (int rank = 0; rank < world.size(); ++rank) group.names.push_back(name_of(world, rank));
  return group;
}

MpiGroup split(const World& world, int color) {
  MpiGroup group;
  PENSTOCK_MPI(MPI_Comm_split(world.communicator(), color, world.rank(), &group.communicator));
  if (group.communicator == MPI_COMM_NULL) return group;
  PENSTOCK_MPI(MPI_Comm_set_errhandler(group.communicator, MPI_ERRORS_RETURN));
  int size = 0;
  PENSTOCK_MPI(MPI_Comm_rank(group.communicator, &group.member));
  PENSTOCK_MPI(MPI_Comm_size(group.communicator, &size));
  for (const int rank : world_ranks(world, group.communicator, size)) {
    group.names.push_back(name_of(world, rank));
  }
  return group;
}

}  // namespace penstock::comm
