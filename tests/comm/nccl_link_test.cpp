#include "comm/nccl_link.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <thread>

#include "comm/error.hpp"
#include "comm/local.hpp"
#include "comm/topology.hpp"
#include "comm/wait.hpp"
#include "tests/comm/nccl_fake.hpp"

namespace penstock::comm {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::ContainsRegex;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

constexpr std::chrono::seconds kPatience{60};

NcclOptions options_of(int member) {
  NcclOptions options;
  options.gpu_uuid = fmt::format("GPU-{}", member);
  options.pci_bus_id = fmt::format("0000:{:02}:00.0", member);
  options.host_id = "";
  options.warm_up_bytes = 4096;
  return options;
}

// Every member's body on a thread of its own; what they throw, by member.
std::vector<std::string> run_members(int members, const std::function<void(Control&, int)>& body) {
  std::vector<Endpoint> endpoints = local_endpoints(members);
  std::vector<std::string> errors(endpoints.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    threads.emplace_back([&, i] {
      const Endpoint endpoint = std::move(endpoints[i]);
      try {
        body(*endpoint.control, static_cast<int>(i));
      } catch (const AgreeError& e) {
        errors[i] = fmt::format("{}{}", e.reported ? "reported: " : "", e.what());
      } catch (const std::exception& e) {
        errors[i] = fmt::format("not agreed: {}", e.what());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

template <typename Link>
void finish(Link& link, Ticket ticket) {
  Wait wait([] { return std::string("transfer"); }, kPatience);
  while (!link.done(ticket)) wait.pause();
}

class NcclLinkTest : public testing::TestWithParam<int> {
 protected:
  ~NcclLinkTest() override { EXPECT_THAT(fake->violations(), IsEmpty()); }
  std::shared_ptr<FakeNccl> fake = std::make_shared<FakeNccl>();
};

// As a pipeline does: what a member receives it sends on, plus one.
TEST_P(NcclLinkTest, ConnectsAllNeighboursAndMovesMessages) {
  fake->init_polls = 2;
  fake->issue_polls = 2;
  fake->finalize_polls = 2;
  const int members = GetParam();
  const auto errors = run_members(members, [&](Control& control, int member) {
    NcclLinks links = connect_nccl(control, fake, options_of(member));
    EXPECT_EQ(links.previous == nullptr, member == 0);
    EXPECT_EQ(links.next == nullptr, member == members - 1);
    ASSERT_THAT(links.edges, SizeIs(static_cast<std::size_t>(members - 1)));
    for (std::size_t i = 0; i < links.edges.size(); ++i) {
      EXPECT_EQ(links.edges[i].from, static_cast<int>(i));
      EXPECT_GT(links.edges[i].bytes_per_s, 0.0);
      EXPECT_GT(links.edges[i].hop_us, 0.0);
    }
    std::vector<std::byte> bytes(1000, std::byte{7});
    for (int round = 0; round < 20; ++round) {
      if (links.previous) {
        finish(*links.previous, links.previous->receive(bytes));
        for (const std::byte byte : bytes) ASSERT_EQ(byte, std::byte(7 + member));
        for (std::byte& byte : bytes) byte = std::byte(7 + member + 1);
      } else {
        std::fill(bytes.begin(), bytes.end(), std::byte{8});
      }
      if (links.next) finish(*links.next, links.next->send(bytes));
    }
    control.all_gather("", "end of the test", kPatience);
  });
  EXPECT_THAT(errors, Each(IsEmpty()));
  EXPECT_EQ(fake->live_handles(), 0U);
  int aborts = 0;
  for (const std::string& line : fake->log()) aborts += line.starts_with("abort") ? 1 : 0;
  EXPECT_EQ(aborts, 0);
}

INSTANTIATE_TEST_SUITE_P(Members, NcclLinkTest, testing::Values(1, 2, 3, 4));

TEST_F(NcclLinkTest, AMemberThatCannotConnectFailsAllWithItsReason) {
  fake->init_polls = FakeNccl::kNever;  // the others wait for it
  fake->init_result[1] = NcclResult::system_error;
  const auto errors = run_members(2, [&](Control& control, int member) {
    NcclOptions options = options_of(member);
    options.setup_timeout = milliseconds(1500);
    connect_nccl(control, fake, options);
  });
  EXPECT_THAT(errors[0], AllOf(HasSubstr("edge from thread 0 to thread 1: NCCL: fake error 2"),
                               HasSubstr("told by thread 1"), Not(HasSubstr("reported"))));
  EXPECT_THAT(errors[1], HasSubstr("reported: edge from thread 0 to thread 1: NCCL: fake error 2"));
}

TEST_F(NcclLinkTest, WarmUpNoticesWrongContents) {
  fake->corrupt = true;
  const auto errors = run_members(2, [&](Control& control, int member) {
    NcclOptions options = options_of(member);
    options.setup_timeout = milliseconds(1500);
    connect_nccl(control, fake, options);
  });
  EXPECT_THAT(errors, Each(HasSubstr("a test message of 4096 bytes arrived with other contents")));
}

// The receive of a test message that never comes is still on the GPU: its memory must not be freed.
TEST_F(NcclLinkTest, WarmUpThatStallsFailsAllInTime) {
  fake->fail_after(0, 3, NcclResult::remote_error);
  const auto errors = run_members(2, [&](Control& control, int member) {
    NcclOptions options = options_of(member);
    options.setup_timeout = milliseconds(1500);
    connect_nccl(control, fake, options);
  });
  // The failure comes first; the other end only notices that nothing comes.
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("fake error 6"), HasSubstr("told by thread 0"))));
}

TEST_F(NcclLinkTest, RefusesTwoRanksOnOneGpuBeforeAnythingIsConnected) {
  const auto errors = run_members(3, [&](Control& control, int member) {
    connect_nccl(control, fake, options_of(member == 2 ? 1 : member));
  });
  EXPECT_THAT(errors, Each(AllOf(HasSubstr("thread 1 and thread 2 have the same GPU (GPU-1)"),
                                 HasSubstr("--link mpi"), HasSubstr("NCCL_HOSTID"))));
  EXPECT_THAT(errors[0], HasSubstr("reported: "));
  EXPECT_THAT(fake->log(), IsEmpty());
}

TEST_F(NcclLinkTest, TwoRanksOnOneGpuMayPassForDifferentHosts) {
  const auto errors = run_members(2, [&](Control& control, int member) {
    NcclOptions options = options_of(0);
    options.host_id = fmt::format("rank-{}", member);
    connect_nccl(control, fake, options);
  });
  EXPECT_THAT(errors, Each(IsEmpty()));
}

TEST_F(NcclLinkTest, ErrorOfATransferNamesTheMembers) {
  const auto errors = run_members(2, [&](Control& control, int member) {
    NcclOptions options = options_of(member);
    options.stall_timeout = milliseconds(400);
    NcclLinks links = connect_nccl(control, fake, options);
    std::vector<std::byte> bytes(10);
    // Member 1 asks for what is never sent.
    if (links.previous) finish(*links.previous, links.previous->receive(bytes));
  });
  EXPECT_THAT(errors[0], IsEmpty());
  EXPECT_THAT(errors[1],
              AllOf(HasSubstr("not agreed: edge from thread 0 to thread 1: receive "),
                    HasSubstr("(10 bytes"), ContainsRegex("does not go forward for [0-9.]+ s")));
}

std::vector<NcclAnnouncement> announcements() {
  std::vector<NcclAnnouncement> all(3);
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].version = 22809;
    if (i + 1 < all.size()) all[i].id[0] = static_cast<char>(i + 1);
    all[i].gpu_uuid = fmt::format("GPU-{}", i);
    all[i].pci_bus_id = fmt::format("0000:{:02}:00.0", i);
  }
  return all;
}
const std::vector<std::string> kNames = {"rank 0, host a", "rank 1, host a", "rank 2, host b"};

TEST(NcclRefusal, NothingIsWrongWithDifferentGpusAndOneVersion) {
  EXPECT_EQ(nccl_refusal(announcements(), kNames), "");
}

TEST(NcclRefusal, DifferentVersionsAreNamed) {
  auto all = announcements();
  all[2].version = 23004;
  EXPECT_EQ(nccl_refusal(all, kNames),
            "rank 1, host a has NCCL 2.28.9, rank 2, host b has 2.30.4: all ranks need the same");
}

TEST(NcclRefusal, OldVersionsAreNamed) {
  auto all = announcements();
  for (NcclAnnouncement& one : all) one.version = 22105;
  EXPECT_EQ(nccl_refusal(all, kNames), "rank 0, host a has NCCL 2.21.5, at least 2.22.3 is needed");
}

// Where ranks outnumber the GPUs, choose_gpus() gives a GPU to ranks that are no neighbours.
TEST(NcclRefusal, RanksOnOneGpuNeedNotBeNeighbours) {
  auto all = announcements();
  all[2].gpu_uuid = all[0].gpu_uuid;
  EXPECT_THAT(nccl_refusal(all, kNames),
              HasSubstr("rank 0, host a and rank 2, host b have the same GPU (GPU-0)"));
  all[2].host_id = "pretended";
  EXPECT_EQ(nccl_refusal(all, kNames), "");
}

// They have a UUID each, but one place on the bus, which is what NCCL looks at.
TEST(NcclRefusal, NeighboursOnMigSlicesOfOneCardAreRefused) {
  auto all = announcements();
  all[2].pci_bus_id = all[0].pci_bus_id;  // never in one communicator
  EXPECT_EQ(nccl_refusal(all, kNames), "");
  all[1].pci_bus_id = all[0].pci_bus_id;
  EXPECT_THAT(nccl_refusal(all, kNames),
              AllOf(HasSubstr("rank 0, host a and rank 1, host a have MIG slices of one GPU (GPU-0 "
                              "and GPU-1)"),
                    HasSubstr("--link mpi")));
  // Nodes that are alike have the same bus ids.
  all[1].host_id = "another";
  EXPECT_EQ(nccl_refusal(all, kNames), "");
}

TEST(NcclHostId, IsTheHostsNameUnlessTheEnvironmentSaysOtherwise) {
  unsetenv("NCCL_HOSTID");
  EXPECT_EQ(nccl_host_id(), host_name());
  setenv("NCCL_HOSTID", "pretended", 1);
  EXPECT_EQ(nccl_host_id(), "pretended");
  unsetenv("NCCL_HOSTID");
}

TEST(NcclRefusal, OneIdForTwoEdgesIsRefused) {
  auto all = announcements();
  all[1].id = all[0].id;
  EXPECT_EQ(
      nccl_refusal(all, kNames),
      "NCCL gave rank 0, host a and rank 1, host a the same id, as it does where NCCL_COMM_ID "
      "is in the environment: unset it");
}

TEST(NcclRefusal, FailureToStartIsTold) {
  auto all = announcements();
  all[1].error = "unhandled system error; no socket interface found";
  EXPECT_EQ(nccl_refusal(all, kNames),
            "NCCL does not start on rank 1, host a: unhandled system error; no socket interface "
            "found");
}

TEST(NcclEdgeReport, SaysSpeedAndWarnsOfSockets) {
  const NcclEdgeReport fast{2, 181.23e9, 14.4};
  EXPECT_EQ(describe(fast), "edge 2 to 3: NCCL, 181.2 GB/s, 14 us a hop");
  EXPECT_EQ(slow_edge_warning(fast), "");
  const NcclEdgeReport slow{0, 1.25e9, 80.0};
  EXPECT_THAT(slow_edge_warning(slow),
              AllOf(HasSubstr("from stage 0 to 1 moves 1.25 GB/s"), HasSubstr("NCCL_DEBUG=INFO")));
}

// Needs no GPU and no driver.
TEST(NcclApi, LibraryTellsItsVersion) {
  const std::unique_ptr<NcclApi> api = make_nccl_api();
  if (!api) GTEST_SKIP() << "built without NCCL";
  int version = 0;
  EXPECT_EQ(api->get_version(version), NcclResult::success);
  EXPECT_GE(version, 22203);
  EXPECT_EQ(api->get_error_string(NcclResult::in_progress), "NCCL operation in progress");
}

}  // namespace
}  // namespace penstock::comm
