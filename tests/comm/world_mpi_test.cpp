#include "comm/world.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/error.hpp"
#include "comm/topology.hpp"
#include "tests/support/mpi.hpp"

namespace penstock::comm {
namespace {

using testing::HasSubstr;

TEST(World, KnowsItsRanksAndHosts) {
  const World& world = support::world();
  int rank = -1;
  int size = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_EQ(world.rank(), rank);
  EXPECT_EQ(world.size(), size);
  // MPI's own name of the host, from each rank.
  constexpr int kLength = MPI_MAX_PROCESSOR_NAME;
  std::vector<char> mine(kLength);
  int length = 0;
  PENSTOCK_MPI(MPI_Get_processor_name(mine.data(), &length));
  std::vector<char> all(static_cast<std::size_t>(size) * kLength);
  PENSTOCK_MPI(MPI_Allgather(mine.data(), kLength, MPI_CHAR, all.data(), kLength, MPI_CHAR,
                             world.communicator()));
  int node_size = 0;
  int node_rank = 0;
  for (int i = 0; i < size; ++i) {
    const std::string host(&all[static_cast<std::size_t>(i) * kLength]);
    EXPECT_EQ(world.host(i), host);
    if (host != mine.data()) continue;
    ++node_size;
    if (i < rank) ++node_rank;
  }
  EXPECT_EQ(world.node_size(), node_size);
  EXPECT_EQ(world.node_rank(), node_rank);
  EXPECT_EQ(world.host(), host_name());
}

TEST(World, HasACommunicatorOfItsOwn) {
  int comparison = MPI_IDENT;
  PENSTOCK_MPI(MPI_Comm_compare(MPI_COMM_WORLD, support::world().communicator(), &comparison));
  EXPECT_EQ(comparison, MPI_CONGRUENT);
}

TEST(World, IsOne) {
  int argc = 0;
  char** argv = nullptr;
  EXPECT_THROW(World(&argc, &argv), CommError);
}

TEST(World, ErrorsOfMpiAreExceptionsThatNameTheCall) {
  const int nobody = support::world().size();
  try {
    PENSTOCK_MPI(MPI_Send(nullptr, 0, MPI_BYTE, nobody, 0, support::world().communicator()));
    ADD_FAILURE() << "no exception";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), HasSubstr("invalid rank"));
    EXPECT_THAT(error.what(), HasSubstr("MPI_Send"));
    EXPECT_THAT(error.what(), HasSubstr("world_mpi_test.cpp"));
  }
}

TEST(World, LaunchedSizeIsTheNearestLaunchersWord) {
  const char* names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
  std::vector<std::pair<std::string, std::string>> before;
  for (const char* name : names) {
    const char* value = std::getenv(name);
    if (value != nullptr) before.emplace_back(name, value);
    unsetenv(name);
  }
  EXPECT_EQ(World::launched_size(), 0);
  setenv("SLURM_STEP_NUM_TASKS", "8", 1);
  EXPECT_EQ(World::launched_size(), 8);
  setenv("PMI_SIZE", "4", 1);
  EXPECT_EQ(World::launched_size(), 4);
  setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  EXPECT_EQ(World::launched_size(), 2);
  setenv("OMPI_COMM_WORLD_SIZE", "2x", 1);
  EXPECT_EQ(World::launched_size(), 4);
  for (const char* name : names) unsetenv(name);
  for (const auto& [name, value] : before) setenv(name.c_str(), value.c_str(), 1);
}

}  // namespace
}  // namespace penstock::comm
