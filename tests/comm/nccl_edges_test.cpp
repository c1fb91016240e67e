#include "comm/nccl_edges.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "comm/error.hpp"
#include "comm/link.hpp"
#include "tests/comm/nccl_fake.hpp"

namespace penstock::comm {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr milliseconds kPatience{60000};

// A rank in the middle: the receiving end of one edge, the sending end of another.
class NcclEdgesTest : public testing::Test {
 protected:
  ~NcclEdgesTest() override { EXPECT_THAT(fake->violations(), IsEmpty()); }

  std::unique_ptr<NcclEdges> make(milliseconds close_timeout = kPatience) {
    auto edges = std::make_unique<NcclEdges>(fake, close_timeout);
    edges->previous = std::make_unique<NcclEdge>(fake, edges->turn(), "in", 1, kPatience);
    edges->next = std::make_unique<NcclEdge>(fake, edges->turn(), "out", 0, kPatience);
    NcclId id{};
    for (NcclEdge* edge : {edges->previous.get(), edges->next.get()}) {
      fake->get_unique_id(id);
      edge->connect(id, kPatience);
    }
    started_ = fake->log().size();
    return edges;
  }
  // Since make().
  std::vector<std::string> log() {
    std::vector<std::string> all = fake->log();
    return {all.begin() + static_cast<std::ptrdiff_t>(started_), all.end()};
  }

  std::shared_ptr<FakeNccl> fake = std::make_shared<FakeNccl>();

 private:
  std::size_t started_ = 0;
};

TEST_F(NcclEdgesTest, EndsInOrderWhenAllIsDone) {
  fake->finalize_polls = 3;
  make().reset();
  EXPECT_THAT(log(),
              ElementsAre("finalize 0", "finalize 1", "gpu 3", "destroy 0", "gpu 3", "destroy 1"));
  EXPECT_EQ(fake->live_handles(), 0U);
}

TEST_F(NcclEdgesTest, AbortsBothTogetherWhenAnExceptionUnwinds) {
  try {
    const auto edges = make();
    throw std::runtime_error("elsewhere");
  } catch (const std::runtime_error&) {
  }
  EXPECT_THAT(log(), ElementsAre("gpu 3", "group_start", "abort 0", "abort 1", "group_end"));
  EXPECT_EQ(fake->live_handles(), 0U);
}

TEST_F(NcclEdgesTest, AbortsWhenSomethingIsUnderWay) {
  auto edges = make();
  std::string in = ".";
  edges->previous->post(NcclOperation::receive, in.data(), in.size());
  edges.reset();
  EXPECT_THAT(
      log(), ElementsAre("receive 1 1", "gpu 3", "group_start", "abort 0", "abort 1", "group_end"));
  EXPECT_EQ(fake->live_handles(), 0U);
}

TEST_F(NcclEdgesTest, AbortsWhileAnOperationIsPutOnTheStream) {
  auto edges = make();
  fake->issue_polls = FakeNccl::kNever;
  std::string in = ".";
  edges->previous->post(NcclOperation::receive, in.data(), in.size());
  edges.reset();
  EXPECT_THAT(
      log(), ElementsAre("receive 1 1", "gpu 3", "group_start", "abort 0", "abort 1", "group_end"));
}

TEST_F(NcclEdgesTest, AbortsWhenTheOtherEndDoesNotComeToTheEnd) {
  fake->finalize_polls = FakeNccl::kNever;
  make(milliseconds(20)).reset();
  EXPECT_THAT(log(),
              ElementsAre("finalize 0", "gpu 3", "group_start", "abort 0", "abort 1", "group_end"));
}

// NCCL destroys only with the other ranks of the host, of which one may be stuck.
TEST_F(NcclEdgesTest, DoesNotWaitForEverForADestroy) {
  fake->destroy_hangs = true;
  auto edges = make(milliseconds(20));
  const Clock::time_point start = Clock::now();
  edges.reset();
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(30));
  EXPECT_THAT(log(), ElementsAre("finalize 0", "finalize 1", "gpu 3", "destroy 0", "gpu 3",
                                 "group_start", "abort 1", "group_end"));
  EXPECT_EQ(fake->live_handles(), 1U) << "the stream of the first one may still be in use";
  fake->destroy_hangs = false;
}

TEST_F(NcclEdgesTest, AbortIsFinalAndHappensOnce) {
  auto edges = make();
  edges->abort();
  edges->abort();
  EXPECT_THROW(edges->next->progress(), CommError);
  edges.reset();
  EXPECT_THAT(log(), ElementsAre("gpu 3", "group_start", "abort 0", "abort 1", "group_end"));
}

// NCCL's abort waits for other ranks, which may not know of the error yet.
TEST_F(NcclEdgesTest, DoesNotWaitForEverForAnAbort) {
  fake->abort_hangs = true;
  auto edges = make(milliseconds(20));
  const Clock::time_point start = Clock::now();
  edges->abort();
  edges.reset();
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(30));
  EXPECT_GT(fake->live_handles(), 0U) << "the streams may still be in use";
  fake->abort_hangs = false;
}

class CountingSender final : public LinkSender {
 public:
  explicit CountingSender(int& aborts) : aborts_(aborts) {}
  Ticket send(std::span<const std::byte>) override { return 0; }
  bool done(Ticket) override { return true; }
  void progress() override {}
  void abort() noexcept override { ++aborts_; }

 private:
  int& aborts_;
};

TEST(AbortOnException, AbortsOnlyWhenAnExceptionEndsItsScope) {
  int aborts = 0;
  Endpoint endpoint;
  endpoint.next = std::make_unique<CountingSender>(aborts);
  { const AbortOnException guard(endpoint); }
  EXPECT_EQ(aborts, 0);
  try {
    const AbortOnException guard(endpoint);
    throw std::runtime_error("out of disk");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(aborts, 1);
}

}  // namespace
}  // namespace penstock::comm
