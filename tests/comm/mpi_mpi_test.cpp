#include <gmock/gmock.h>

#include "comm/mpi.hpp"
#include "tests/comm/endpoint_suite.hpp"
#include "tests/support/memory.hpp"
#include "tests/support/mpi.hpp"

namespace penstock::comm {
namespace {

constexpr std::size_t kSmallPiece = 1000;

Transport ranks(const std::string& name, std::size_t max_piece_bytes) {
  return {name, [max_piece_bytes](const std::function<void(Endpoint&)>& body) {
            Endpoint endpoint = mpi_endpoint(support::world(), 1, max_piece_bytes);
            body(endpoint);
          }};
}

INSTANTIATE_TEST_SUITE_P(Mpi, EndpointTest,
                         testing::Values(ranks("Whole", std::size_t{1} << 30U),
                                         ranks("Cut", kSmallPiece)),
                         transport_name);

TEST(MpiEndpoint, DescribesMembersByRankAndHost) {
  const World& world = support::world();
  const Endpoint endpoint = mpi_endpoint(world);
  EXPECT_EQ(endpoint.control->member(), world.rank());
  EXPECT_EQ(endpoint.control->size(), world.size());
  EXPECT_EQ(endpoint.control->describe(world.size() - 1),
            fmt::format("rank {}, host {}", world.size() - 1, world.host(world.size() - 1)));
}

TEST(MpiEndpoint, PieceSizesThatMpiCannotCountAreRefused) {
  EXPECT_THROW(mpi_endpoint(support::world(), 1, 0), std::invalid_argument);
  EXPECT_THROW(mpi_endpoint(support::world(), 1, std::size_t{1} << 31U), std::invalid_argument);
}

TEST(MpiEndpoint, PipelinesSideBySideHaveChannelsOfTheirOwn) {
  const World& world = support::world();
  if (world.size() % 2 != 0) {
    EXPECT_THROW(mpi_endpoint(world, 2), std::invalid_argument);
    return;
  }
  const int stages = world.size() / 2;
  Endpoint endpoint = mpi_endpoint(world, 2);
  EXPECT_EQ(endpoint.pipelines, 2);
  EXPECT_EQ(endpoint.pipeline, world.rank() / stages);
  EXPECT_EQ(endpoint.control->member(), world.rank() % stages);
  EXPECT_EQ(endpoint.control->size(), stages);
  EXPECT_EQ(endpoint.all().member(), world.rank());
  EXPECT_EQ(endpoint.all().size(), world.size());
  EXPECT_EQ(endpoint.firsts != nullptr, world.rank() % stages == 0);
  // Members are known by their ranks in the world.
  const int begin = endpoint.pipeline * stages;
  EXPECT_EQ(endpoint.control->describe(stages - 1),
            fmt::format("rank {}, host {}", begin + stages - 1, world.host(begin + stages - 1)));
  const std::string mine = std::to_string(world.rank());
  EXPECT_THAT(endpoint.all().all_gather(mine, "all", kPatience), testing::SizeIs(world.size()));
  EXPECT_EQ(endpoint.control->all_gather(mine, "mine", kPatience)[0], std::to_string(begin));
  if (endpoint.firsts) {
    EXPECT_THAT(endpoint.firsts->all_gather(mine, "firsts", kPatience),
                testing::ElementsAre("0", std::to_string(stages)));
  }
}

// Everyone but `late` waits in vain; then `late` comes as well.
std::string wait_in_vain(Control& control, int late) {
  const World& world = support::world();
  if (world.rank() == late) PENSTOCK_MPI(MPI_Barrier(world.communicator()));
  std::string text;
  try {
    control.all_gather("", "the plan", std::chrono::milliseconds(100));
  } catch (const CommError& error) {
    text = error.what();
  }
  if (world.rank() != late) PENSTOCK_MPI(MPI_Barrier(world.communicator()));
  return text;
}

TEST(MpiEndpoint, AllRanksNameTheOneThatDoesNotComeToAllGather) {
  const World& world = support::world();
  if (world.size() < 2) GTEST_SKIP() << "needs 2 ranks";
  const Endpoint endpoint = mpi_endpoint(world);
  const int late = world.size() - 1;
  EXPECT_EQ(
      wait_in_vain(*endpoint.control, late),
      fmt::format("the plan: no word from rank {}, host {} for 0.1 s", late, world.host(late)));
}

TEST(MpiEndpoint, AllRanksNameTheFirstThatDoesNotComeToAllGather) {
  const World& world = support::world();
  if (world.size() < 2) GTEST_SKIP() << "needs 2 ranks";
  const Endpoint endpoint = mpi_endpoint(world);
  const std::string text = wait_in_vain(*endpoint.control, 0);
  if (world.rank() > 0) {
    EXPECT_EQ(text, fmt::format("the plan: no word from rank 0, host {} for 0.1 s", world.host(0)));
  }
}

TEST(MpiEndpoint, AllGatherWaitsForWhoMakesProgress) {
  const World& world = support::world();
  if (world.size() < 2) GTEST_SKIP() << "needs 2 ranks";
  for (const int slow : {0, world.size() - 1}) {
    Endpoint endpoint = mpi_endpoint(world);
    all_gather_with_slow(slow, endpoint, 5 * kBeatInterval);
  }
}

// Alive, but its work does not move.
TEST(MpiEndpoint, AllRanksNameTheOneThatOnlyLives) {
  const World& world = support::world();
  if (world.size() < 2) GTEST_SKIP() << "needs 2 ranks";
  for (const int idle : {0, world.size() - 1}) {
    const Endpoint endpoint = mpi_endpoint(world);
    if (world.rank() == idle) {
      const Clock::time_point end = Clock::now() + 4 * kBeatInterval;
      while (Clock::now() < end) {
        endpoint.control->beat(0);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
    }
    std::string text;
    try {
      endpoint.control->all_gather("", "the plan", 2 * kBeatInterval);
    } catch (const CommError& error) {
      text = error.what();
    }
    PENSTOCK_MPI(MPI_Barrier(world.communicator()));
    // Member 0 comes late itself, and then finds all the others.
    if (world.rank() > 0 || idle > 0) {
      EXPECT_EQ(text, fmt::format("the plan: no word from rank {}, host {} for 1 s", idle,
                                  world.host(idle)));
    }
  }
}

TEST(MpiEndpoint, CarriesMoreThan2GiB) {
  const World& world = support::world();
  if (world.size() != 2) GTEST_SKIP() << "needs 2 ranks";
  // Both ranks must come to the same conclusion.
  Endpoint endpoint = mpi_endpoint(world);
  const bool enough = support::available_memory_bytes() >= std::size_t{6} << 30U;
  for (const std::string& theirs :
       endpoint.control->all_gather(enough ? "enough" : "", "memory", kPatience)) {
    if (theirs.empty()) GTEST_SKIP() << "needs 6 GiB of free memory";
  }
  send_more_than_2_gib(endpoint);
}

}  // namespace
}  // namespace penstock::comm
