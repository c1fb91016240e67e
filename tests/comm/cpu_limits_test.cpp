#include "comm/cpu_limits.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace penstock::comm {
namespace {

// A machine's /proc and /sys made of files.
class CgroupTest : public testing::Test {
 protected:
  CgroupTest() { std::filesystem::create_directories(root_); }
  ~CgroupTest() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  std::filesystem::path root_ =
      std::filesystem::path(testing::TempDir()) /
      ("cgroup_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
};

TEST(CpuList, CountsRangesAndSingles) {
  EXPECT_EQ(count_cpu_list("0"), 1);
  EXPECT_EQ(count_cpu_list("0-3"), 4);
  EXPECT_EQ(count_cpu_list("0-3,8,10-11"), 7);
}

TEST(CpuList, WhatIsNoListCountsNothing) {
  for (const char* text : {"", "a", "3-1", "0-", "-3", "0-99999999999999999999", "0-4000000000"}) {
    EXPECT_EQ(count_cpu_list(text), 0) << text;
  }
}

TEST_F(CgroupTest, NoCgroupIsNoLimit) { EXPECT_EQ(cgroup_cpus(root_), 0); }

TEST_F(CgroupTest, Version2CpusetAndQuota) {
  write("proc/self/cgroup", "0::/job/step\n");
  write("sys/fs/cgroup/job/step/cpuset.cpus.effective", "0-7\n");
  write("sys/fs/cgroup/job/step/cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_cpus(root_), 8);
  write("sys/fs/cgroup/job/step/cpu.max", "250000 100000\n");
  EXPECT_EQ(cgroup_cpus(root_), 3);
  write("sys/fs/cgroup/job/cpu.max", "200000 100000\n");
  EXPECT_EQ(cgroup_cpus(root_), 2);
}

TEST_F(CgroupTest, Version2InAContainerWithTheHostsPath) {
  write("proc/self/cgroup", "0::/system.slice/docker-1234.scope\n");
  write("sys/fs/cgroup/cpu.max", "400000 100000\n");
  EXPECT_EQ(cgroup_cpus(root_), 4);
}

TEST_F(CgroupTest, Version1HasAMountForEachController) {
  write("proc/self/cgroup", "4:memory:/m\n3:cpuset:/slurm/job_1\n2:cpu,cpuacct:/\n");
  write("sys/fs/cgroup/cpuset/slurm/job_1/cpuset.effective_cpus", "4-9\n");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_cpus(root_), 6);
  write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "500000\n");
  EXPECT_EQ(cgroup_cpus(root_), 5);
}

TEST_F(CgroupTest, BrokenFilesAreNoLimit) {
  write("proc/self/cgroup", "\n::\n0::/x\nnonsense\n");
  write("sys/fs/cgroup/x/cpu.max", "-5 0\n");
  write("sys/fs/cgroup/x/cpuset.cpus.effective", "\n");
  EXPECT_EQ(cgroup_cpus(root_), 0);
}

TEST(SlurmCpus, ComeFromTheEnvironment) {
  unsetenv("SLURM_CPUS_ON_NODE");
  EXPECT_EQ(slurm_cpus(), 0);
  setenv("SLURM_CPUS_ON_NODE", "12", 1);
  EXPECT_EQ(slurm_cpus(), 12);
  setenv("SLURM_CPUS_ON_NODE", "many", 1);
  EXPECT_EQ(slurm_cpus(), 0);
  unsetenv("SLURM_CPUS_ON_NODE");
}

}  // namespace
}  // namespace penstock::comm
