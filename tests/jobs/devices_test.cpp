#include "jobs/devices.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/local.hpp"

namespace penstock::jobs {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

constexpr DeviceKind kAuto = DeviceKind::automatic;
constexpr DeviceKind kCpu = DeviceKind::cpu;
constexpr DeviceKind kCuda = DeviceKind::cuda;

DeviceOffer with(int rank, const std::string& host, std::vector<std::string> uuids) {
  const std::vector<std::string> bus_ids = uuids;
  return {"rank " + std::to_string(rank) + ", host " + host, {host, std::move(uuids)}, "", bus_ids};
}
// The only one that the rank sees.
DeviceOffer with_slice(int rank, const std::string& host, const std::string& uuid,
                       const std::string& bus_id) {
  return {"rank " + std::to_string(rank) + ", host " + host, {host, {uuid}}, "", {bus_id}};
}
DeviceOffer without(int rank, const std::string& host, const std::string& why) {
  return {"rank " + std::to_string(rank) + ", host " + host, {host, {}}, why};
}

TEST(PlanDevices, GpusWhereEveryRankHasOne) {
  const std::vector<DeviceOffer> offers = {with(0, "a", {"x", "y"}), with(1, "a", {"x", "y"}),
                                           with(2, "b", {"z"})};
  for (const DeviceKind asked : {kAuto, kCuda}) {
    const DevicePlan plan = plan_devices(asked, offers);
    EXPECT_EQ(plan.kind, kCuda);
    ASSERT_EQ(plan.gpus.size(), 3U);
    EXPECT_EQ(plan.gpus[0].gpu, 0);
    EXPECT_EQ(plan.gpus[1].gpu, 1);
    EXPECT_EQ(plan.gpus[2].gpu, 0);
    for (const auto& choice : plan.gpus) EXPECT_EQ(choice.sharers, 1);
    EXPECT_EQ(plan.note, "");
    EXPECT_EQ(plan.no_nccl, "");
  }
}

TEST(PlanDevices, CpuWhenAskedForOrWhenNobodyHasAGpu) {
  const DevicePlan asked = plan_devices(kCpu, {with(0, "a", {"x"})});
  EXPECT_EQ(asked.kind, kCpu);
  EXPECT_EQ(asked.note, "");
  const DevicePlan none = plan_devices(
      kAuto, {without(0, "a", "no usable GPU: w"), without(1, "b", "no usable GPU: v")});
  EXPECT_EQ(none.kind, kCpu);
  EXPECT_TRUE(none.gpus.empty());
  EXPECT_EQ(none.note, "no usable GPU: w");
}

TEST(PlanDevices, CudaWithoutAGpuIsAnErrorInTheDriversWords) {
  EXPECT_THAT([] { plan_devices(kCuda, {without(0, "a", "no usable GPU: driver's words")}); },
              ThrowsMessage<UsageError>("--device cuda: no usable GPU: driver's words"));
  EXPECT_THAT(
      [] {
        plan_devices(kCuda, {with(0, "a", {"x"}), without(1, "b", "no usable GPU: words")});
      },
      ThrowsMessage<UsageError>("--device cuda: rank 1, host b: no usable GPU: words"));
}

TEST(PlanDevices, AutoDoesNotMixGpusAndCpus) {
  EXPECT_THAT(
      [] {
        plan_devices(kAuto, {without(0, "a", "no usable GPU: words"), with(1, "b", {"x"})});
      },
      ThrowsMessage<UsageError>(AllOf(HasSubstr("rank 1, host b has a GPU"),
                                      HasSubstr("rank 0, host a: no usable GPU: words"),
                                      HasSubstr("--device cpu"))));
}

TEST(PlanDevices, RanksShareAGpuWhereThereAreTooFew) {
  const DevicePlan plan = plan_devices(kCuda, {with(0, "a", {"x"}), with(1, "a", {"x"})});
  ASSERT_EQ(plan.gpus.size(), 2U);
  for (const auto& choice : plan.gpus) {
    EXPECT_EQ(choice.gpu, 0);
    EXPECT_EQ(choice.sharers, 2);
  }
}

TEST(PlanDevices, NcclCannotConnectRanksThatShareAGpu) {
  EXPECT_EQ(plan_devices(kCuda, {with(0, "a", {"x"}), with(1, "a", {"x"})}).no_nccl,
            "rank 0, host a and rank 1, host a share a GPU");
  // No neighbours, but their kernels wait for each other.
  EXPECT_EQ(plan_devices(kCuda, {with(0, "a", {"x", "y"}), with(1, "a", {"x", "y"}),
                                 with(2, "a", {"x", "y"})})
                .no_nccl,
            "rank 0, host a and rank 2, host a share a GPU");
  // Nodes that are alike have the same bus ids, and machines that were copied the same UUIDs.
  EXPECT_EQ(plan_devices(kCuda, {with(0, "a", {"x"}), with(1, "b", {"x"})}).no_nccl, "");
}

// Slices of one card have its bus id and a UUID each.
TEST(PlanDevices, MigSlicesAreGpusThatNcclDoesNotConnectOnOneCard) {
  const DevicePlan plan = plan_devices(
      kCuda, {with_slice(0, "a", "MIG-1", "card"), with_slice(1, "a", "MIG-2", "card")});
  for (const auto& choice : plan.gpus) EXPECT_EQ(choice.sharers, 1);
  EXPECT_EQ(plan.no_nccl, "rank 0, host a and rank 1, host a have MIG slices of one GPU");
  // Never in one communicator.
  EXPECT_EQ(plan_devices(kCuda,
                         {with_slice(0, "a", "MIG-1", "card"), with_slice(1, "a", "MIG-2", "other"),
                          with_slice(2, "a", "MIG-3", "card")})
                .no_nccl,
            "");
  EXPECT_EQ(plan_devices(kCuda,
                         {with_slice(0, "a", "MIG-1", "card"), with_slice(1, "b", "MIG-2", "card")})
                .no_nccl,
            "");
}

TEST(CheckDevice, RefusesWhatCanNeverBe) {
  EXPECT_THAT(
      [] {
        check_device(kCpu, LinkKind::nccl, {LinkKind::nccl, 2});
      },
      ThrowsMessage<UsageError>(AllOf(HasSubstr("--link nccl"), HasSubstr("--device cpu"))));
  EXPECT_THAT(
      [] {
        check_device(kCuda, LinkKind::automatic, {LinkKind::local, 3});
      },
      ThrowsMessage<UsageError>(AllOf(HasSubstr("--device cuda"), HasSubstr("3 ranks"))));
  EXPECT_THAT(
      [] {
        check_device(DeviceKind::virtual_device, LinkKind::nccl, {LinkKind::nccl, 2});
      },
      ThrowsMessage<UsageError>(AllOf(HasSubstr("--link nccl"), HasSubstr("--virtual"))));
  EXPECT_NO_THROW(
      check_device(DeviceKind::virtual_device, LinkKind::automatic, {LinkKind::local, 3}));
  for (const DeviceKind device : {kAuto, kCpu, kCuda}) {
    EXPECT_NO_THROW(check_device(device, LinkKind::automatic, {LinkKind::local, 1}));
    EXPECT_NO_THROW(check_device(device, LinkKind::mpi, {LinkKind::mpi, 4}));
  }
  EXPECT_NO_THROW(check_device(kAuto, LinkKind::local, {LinkKind::local, 3}));
}

DevicePlan plan_of(DeviceKind kind, const std::string& no_nccl = "") {
  DevicePlan plan;
  plan.kind = kind;
  plan.no_nccl = no_nccl;
  return plan;
}

TEST(ChooseLink, AutoTakesMpiWhereNcclCannotConnect) {
  const DevicePlan plan = plan_of(kCuda, "rank 0 and rank 1 share a GPU");
  EXPECT_EQ(choose_link(plan, LinkKind::automatic, {LinkKind::mpi, 2}), LinkKind::mpi);
  // Whoever asks for it hears connect_nccl()'s advice, or has set NCCL_HOSTID.
  EXPECT_EQ(choose_link(plan, LinkKind::nccl, {LinkKind::nccl, 2}), LinkKind::nccl);
}

TEST(ChooseLink, NcclBetweenGpusUnlessMpiIsAskedFor) {
  const Layout ranks{LinkKind::mpi, 4};
  const Layout one{LinkKind::local, 1};
  EXPECT_EQ(choose_link(plan_of(kCuda), LinkKind::automatic, ranks), LinkKind::nccl);
  EXPECT_EQ(choose_link(plan_of(kCuda), LinkKind::nccl, {LinkKind::nccl, 4}), LinkKind::nccl);
  EXPECT_EQ(choose_link(plan_of(kCuda), LinkKind::mpi, ranks), LinkKind::mpi);
  EXPECT_EQ(choose_link(plan_of(kCuda), LinkKind::automatic, one), LinkKind::local);
  EXPECT_EQ(choose_link(plan_of(kCpu), LinkKind::automatic, ranks), LinkKind::mpi);
  EXPECT_EQ(choose_link(plan_of(kCpu), LinkKind::automatic, one), LinkKind::local);
  EXPECT_THAT(
      [] {
        choose_link(plan_of(kCpu), LinkKind::nccl, {LinkKind::nccl, 2});
      },
      ThrowsMessage<UsageError>(HasSubstr("--link nccl")));
}

TEST(TakeDevice, CpuLeavesTheLinksAlone) {
  std::vector<comm::Endpoint> endpoints = comm::local_endpoints(1);
  const StageDevice device =
      take_device(endpoints[0], kCpu, LinkKind::automatic, {LinkKind::local, 1});
  EXPECT_EQ(device.kind, kCpu);
  const LinkReport report = connect_links(endpoints[0], device, 1, 64);
  EXPECT_EQ(report.name, "local");
  EXPECT_TRUE(report.edges.empty());
}

TEST(TakeDevice, AutoOnAMachineWithoutAGpuTakesTheCpu) {
  const comm::device::GpuSurvey survey = comm::device::survey_gpus();
  if (!survey.gpus.empty()) GTEST_SKIP() << "this machine has a GPU";
  std::vector<comm::Endpoint> endpoints = comm::local_endpoints(1);
  const StageDevice device =
      take_device(endpoints[0], kAuto, LinkKind::automatic, {LinkKind::local, 1});
  EXPECT_EQ(device.kind, kCpu);
  // A program that is built without CUDA had no choice to tell of.
  EXPECT_EQ(device.note, survey.runtime_version > 0 ? survey.none : "");
  EXPECT_THAT(
      [&] {
        take_device(endpoints[0], kCuda, LinkKind::automatic, {LinkKind::local, 1});
      },
      ThrowsMessage<UsageError>("--device cuda: " + survey.none));
}

}  // namespace
}  // namespace penstock::jobs
