#include "comm/topology.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

namespace penstock::comm {
namespace {

using testing::HasSubstr;

CpuPlacement placement(int allowed_cpus, int node_cpus) {
  return {.host = "n042", .allowed_cpus = allowed_cpus, .node_cpus = node_cpus};
}

TEST(DefaultThreads, AreTheMaskOfAPinnedRank) {
  EXPECT_EQ(default_threads(placement(8, 64), 1), 8);
  EXPECT_EQ(default_threads(placement(8, 64), 8), 8);
  EXPECT_EQ(default_threads(placement(1, 64), 64), 1);
  EXPECT_EQ(default_threads(placement(4, 64), 8), 4);
}

TEST(DefaultThreads, AreTheShareOfASocketThatRanksHaveInCommon) {
  EXPECT_EQ(default_threads(placement(32, 64), 4), 16);
  EXPECT_EQ(default_threads(placement(32, 64), 3), 21);
}

TEST(DefaultThreads, AreTheShareOfARankThatIsNotPinned) {
  EXPECT_EQ(default_threads(placement(64, 64), 1), 64);
  EXPECT_EQ(default_threads(placement(64, 64), 3), 21);
  // A quota makes the node smaller than the mask.
  EXPECT_EQ(default_threads(placement(64, 4), 2), 2);
}

TEST(DefaultThreads, AreAtLeastOne) {
  EXPECT_EQ(default_threads(placement(2, 2), 4), 1);
  EXPECT_EQ(default_threads(placement(0, 2), 4), 1);
  EXPECT_EQ(default_threads(placement(2, 2), 0), 2);
}

TEST(BindingWarning, IsEmptyWhenARankHasItsShare) {
  EXPECT_EQ(binding_warning(placement(64, 64), 4), "");
  EXPECT_EQ(binding_warning(placement(16, 64), 4), "");
  EXPECT_EQ(binding_warning(placement(1, 2), 4), "");
  EXPECT_EQ(binding_warning(placement(64, 4), 2), "");
}

TEST(BindingWarning, SaysWhatIsWrongAndHowToMendIt) {
  const std::string text = binding_warning(placement(1, 64), 2);
  EXPECT_THAT(text, HasSubstr("n042"));
  EXPECT_THAT(text, HasSubstr("1 of 64 cores"));
  EXPECT_THAT(text, HasSubstr("mpirun --bind-to none"));
  EXPECT_THAT(text, HasSubstr("--map-by slot:PE=32"));
  EXPECT_THAT(text, HasSubstr("srun --cpus-per-task=32 --cpu-bind=cores"));
}

TEST(CpuPlacement, FollowsTheMaskOfThisProcess) {
  const CpuPlacement before = cpu_placement();
  EXPECT_EQ(before.host, host_name());
  EXPECT_FALSE(before.host.empty());
  EXPECT_GE(before.allowed_cpus, 1);
  EXPECT_GE(before.node_cpus, 1);
  // A thread of its own, so that the mask of this one stays.
  std::thread([] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(cpu_placement().allowed_cpus, 1);
  }).join();
}

}  // namespace
}  // namespace penstock::comm
