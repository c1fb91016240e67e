#include "comm/nccl_edge.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <thread>

#include "comm/error.hpp"
#include "tests/comm/nccl_fake.hpp"

namespace penstock::comm {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::ContainsRegex;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr milliseconds kPatience{60000};

// Both ends of one edge, each of a rank with its own GPU.
class NcclEdgeTest : public testing::Test {
 protected:
  explicit NcclEdgeTest(milliseconds stall_timeout = kPatience)
      : sender(fake, sender_turn, "edge from rank 0 to rank 1", 0, stall_timeout),
        receiver(fake, receiver_turn, "edge from rank 0 to rank 1", 1, stall_timeout) {
    fake->get_unique_id(id);
  }
  ~NcclEdgeTest() override { EXPECT_THAT(fake->violations(), IsEmpty()); }

  void connect() {
    sender.connect(id, kPatience);
    receiver.connect(id, kPatience);
  }
  Ticket send(std::span<char> bytes) {
    return sender.post(NcclOperation::send, bytes.data(), bytes.size());
  }
  Ticket receive(std::span<char> bytes) {
    return receiver.post(NcclOperation::receive, bytes.data(), bytes.size());
  }
  // What is posted at both ends gets through within so many polls.
  void pump(int polls) {
    for (int i = 0; i < polls; ++i) {
      sender.progress();
      receiver.progress();
    }
  }
  std::vector<std::string> operations() {
    std::vector<std::string> log = fake->log();
    std::erase_if(log, [](const std::string& line) { return line.starts_with("init"); });
    return log;
  }

  std::shared_ptr<FakeNccl> fake = std::make_shared<FakeNccl>();
  std::shared_ptr<NcclTurn> sender_turn = std::make_shared<NcclTurn>();
  std::shared_ptr<NcclTurn> receiver_turn = std::make_shared<NcclTurn>();
  NcclId id{};
  NcclEdge sender;
  NcclEdge receiver;
};

template <typename Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const CommError& e) {
    return e.what();
  }
  return "no error";
}

TEST_F(NcclEdgeTest, MovesMessagesInOrder) {
  connect();
  std::string one = "first";
  std::string two = "second message";
  std::string one_in(one.size(), '.');
  std::string two_in(two.size(), '.');
  const Ticket a = receive(one_in);
  const Ticket b = receive(two_in);
  EXPECT_FALSE(receiver.done(a));
  EXPECT_EQ(send(one), 0U);
  EXPECT_TRUE(receiver.done(a));
  EXPECT_FALSE(receiver.done(b));
  EXPECT_EQ(send(two), 1U);
  EXPECT_TRUE(receiver.done(b));
  EXPECT_TRUE(sender.done(1));
  EXPECT_EQ(one_in, one);
  EXPECT_EQ(two_in, two);
  EXPECT_TRUE(sender.quiet());
}

TEST_F(NcclEdgeTest, WaitsForACommunicatorThatIsMadeInTheBackground) {
  fake->init_polls = 5;
  connect();
  std::string out = "x";
  std::string in = ".";
  receive(in);
  send(out);
  EXPECT_TRUE(receiver.done(0));
  EXPECT_EQ(in, "x");
}

TEST_F(NcclEdgeTest, CommunicatorThatIsNotMadeInTimeIsAnErrorThatNamesTheEdge) {
  fake->init_polls = FakeNccl::kNever;
  EXPECT_EQ(error_of([&] { sender.connect(id, milliseconds(20)); }),
            "no NCCL communicator on the edge from rank 0 to rank 1 for 0.02 s");
  EXPECT_FALSE(sender.quiet());
  EXPECT_NE(sender.release_communicator(), nullptr);
}

TEST_F(NcclEdgeTest, RefusedCommunicatorIsAnErrorInNcclsWords) {
  fake->init_result[0] = NcclResult::invalid_usage;
  EXPECT_THAT(error_of([&] { sender.connect(id, kPatience); }),
              AllOf(HasSubstr("edge from rank 0 to rank 1: NCCL: fake error 5"),
                    HasSubstr("ncclCommInitRankConfig"), HasSubstr("fake last words")));
  EXPECT_EQ(sender.release_communicator(), nullptr);
}

// The fake notes every use of the stream and of the communicator while an operation is in progress.
TEST_F(NcclEdgeTest, OperationsInProgressHoldBackTheNextOnes) {
  connect();
  fake->issue_polls = 3;
  std::array<std::string, 3> out = {"a", "bb", "ccc"};
  std::array<std::string, 3> in = {".", "..", "..."};
  for (std::size_t i = 0; i < out.size(); ++i) {
    send(out[i]);
    receive(in[i]);
  }
  EXPECT_THAT(operations(), ElementsAre("send 0 1", "receive 1 1"));
  EXPECT_FALSE(sender.done(0));
  pump(20);
  EXPECT_TRUE(sender.done(2));
  EXPECT_TRUE(receiver.done(2));
  EXPECT_EQ(in, out);
  EXPECT_THAT(operations(), ElementsAre("send 0 1", "receive 1 1", "send 0 2", "receive 1 2",
                                        "send 0 3", "receive 1 3"));
}

TEST_F(NcclEdgeTest, EdgesOfARankTakeTurns) {
  // The rank that receives on this edge sends on another one.
  NcclEdge onward(fake, receiver_turn, "edge from rank 1 to rank 2", 0, kPatience);
  NcclId other{};
  fake->get_unique_id(other);
  connect();
  onward.connect(other, kPatience);
  fake->issue_polls = 4;
  std::string in = ".";
  std::string out = "?!";
  receive(in);
  onward.post(NcclOperation::send, out.data(), out.size());
  for (int i = 0; i < 2; ++i) onward.progress();
  EXPECT_THAT(operations(), ElementsAre("receive 1 1"));
  for (int i = 0; i < 5; ++i) receiver.progress();
  onward.progress();
  EXPECT_THAT(operations(), ElementsAre("receive 1 1", "send 0 2"));
}

// A rank that waits for one edge need not look at the other one.
TEST_F(NcclEdgeTest, AnEdgeThatNobodyLooksAtDoesNotKeepTheTurn) {
  NcclEdge onward(fake, receiver_turn, "edge from rank 1 to rank 2", 0, kPatience);
  NcclId other{};
  fake->get_unique_id(other);
  connect();
  onward.connect(other, kPatience);
  fake->issue_polls = 4;
  std::array<std::string, 2> in = {".", "."};
  std::string out = "?!";
  for (std::string& text : in) receive(text);
  onward.post(NcclOperation::send, out.data(), out.size());
  for (int i = 0; i < 20; ++i) onward.progress();
  // The second receive has to wait, although it was posted before the send.
  EXPECT_THAT(operations(), ElementsAre("receive 1 1", "send 0 2"));
  receiver.progress();
  receiver.progress();
  EXPECT_THAT(operations(), ElementsAre("receive 1 1", "send 0 2", "receive 1 1"));
}

TEST_F(NcclEdgeTest, TheTurnsErrorIsToldByTheEdgeThatWaitsForIt) {
  NcclEdge onward(fake, receiver_turn, "edge from rank 1 to rank 2", 0, kPatience);
  NcclId other{};
  fake->get_unique_id(other);
  connect();
  onward.connect(other, kPatience);
  fake->issue_polls = FakeNccl::kNever;
  std::string in = ".";
  std::string out = "?!";
  receive(in);
  onward.post(NcclOperation::send, out.data(), out.size());
  fake->fail_after(1, 0, NcclResult::remote_error);
  EXPECT_THAT(error_of([&] { onward.progress(); }),
              AllOf(HasSubstr("edge from rank 0 to rank 1: NCCL: fake error 6"),
                    HasSubstr("receive 0 (1 bytes")));
}

TEST_F(NcclEdgeTest, SendStartsAfterWhatWasOnTheComputeStream) {
  connect();
  void* compute = fake->create_stream();
  sender.set_compute_stream(compute);
  std::string out = "before";
  std::string in(out.size(), '.');
  receive(in);
  const int kernel = fake->start_kernel(compute);
  send(out);
  fake->start_kernel(compute);  // what comes later does not count
  pump(5);
  EXPECT_FALSE(receiver.done(0));
  out = "after!";  // the kernel writes what is sent
  fake->end_kernel(kernel);
  pump(1);
  EXPECT_TRUE(receiver.done(0));
  EXPECT_EQ(in, "after!");
}

TEST_F(NcclEdgeTest, EventsOfOneMessageServeTheNextOnes) {
  connect();
  void* compute = fake->create_stream();
  sender.set_compute_stream(compute);
  std::string out = "x";
  std::string in = ".";
  std::size_t handles = 0;
  for (int i = 0; i < 50; ++i) {
    const int kernel = fake->start_kernel(compute);
    receive(in);
    send(out);
    // An event that is used again must not let a later send go early.
    ASSERT_FALSE(sender.done(static_cast<Ticket>(i)));
    fake->end_kernel(kernel);
    pump(2);
    ASSERT_TRUE(sender.done(static_cast<Ticket>(i)));
    if (i == 5) handles = fake->live_handles();
  }
  EXPECT_EQ(fake->live_handles(), handles);
}

TEST_F(NcclEdgeTest, ReceiveDoesNotWaitForTheComputeStream) {
  connect();
  void* compute = fake->create_stream();
  receiver.set_compute_stream(compute);
  fake->start_kernel(compute);
  std::string out = "x";
  std::string in = ".";
  receive(in);
  send(out);
  EXPECT_TRUE(receiver.done(0));
}

TEST_F(NcclEdgeTest, ComputeStreamWaitsForWhatIsReceived) {
  connect();
  void* compute = fake->create_stream();
  receiver.set_compute_stream(compute);
  std::string out = "x";
  std::string in = ".";
  receive(in);
  EXPECT_TRUE(receiver.order_compute_after(0));
  EXPECT_FALSE(fake->stream_is_idle(compute));
  send(out);
  EXPECT_TRUE(fake->stream_is_idle(compute));
  EXPECT_TRUE(receiver.done(0));
  EXPECT_TRUE(receiver.order_compute_after(0));
}

TEST_F(NcclEdgeTest, ComputeStreamCannotWaitForWhatIsNotOnAStreamYet) {
  connect();
  fake->issue_polls = 3;
  void* compute = fake->create_stream();
  receiver.set_compute_stream(compute);
  std::string in = ".";
  receive(in);
  EXPECT_FALSE(receiver.order_compute_after(0));
  EXPECT_TRUE(fake->stream_is_idle(compute));
  pump(4);
  EXPECT_TRUE(receiver.order_compute_after(0));
  EXPECT_FALSE(fake->stream_is_idle(compute));
}

TEST_F(NcclEdgeTest, EmptyMessagesNeedNoNcclButKeepTheOrder) {
  connect();
  std::string in = ".";
  receive(in);
  const Ticket empty = receiver.post(NcclOperation::receive, nullptr, 0);
  EXPECT_FALSE(receiver.done(empty));
  std::string out = "x";
  send(out);
  EXPECT_TRUE(receiver.done(empty));
  EXPECT_THAT(operations(), ElementsAre("receive 1 1", "send 0 1"));
}

TEST_F(NcclEdgeTest, SizesAbove4GiBArriveWhole) {
  connect();
  constexpr std::size_t kSize = (std::size_t{5} << 30U) + 3;
  receiver.post(NcclOperation::receive, this, kSize);
  sender.post(NcclOperation::send, this, kSize);
  EXPECT_TRUE(sender.done(0));
  EXPECT_THAT(operations(), ElementsAre("receive 1 5368709123", "send 0 5368709123"));
}

TEST_F(NcclEdgeTest, AsynchronousErrorNamesEdgeAndOperation) {
  connect();
  std::string in(7, '.');
  receive(in);
  fake->fail_after(1, 3, NcclResult::remote_error);
  EXPECT_THAT(error_of([&] { pump(10); }),
              AllOf(HasSubstr("edge from rank 0 to rank 1: NCCL: fake error 6"),
                    HasSubstr("receive 0 (7 bytes, posted "), HasSubstr("fake last words")));
  EXPECT_FALSE(receiver.quiet());
  EXPECT_THAT(error_of([&] { receiver.progress(); }), HasSubstr("has failed or was given up"));
  EXPECT_THAT(error_of([&] { receive(in); }), HasSubstr("has failed or was given up"));
}

TEST_F(NcclEdgeTest, LossOfThePeerIsFoundWithNothingUnderWay) {
  connect();
  fake->fail_after(0, 0, NcclResult::remote_error);
  EXPECT_THAT(error_of([&] { sender.progress(); }), HasSubstr("fake error 6"));
}

TEST_F(NcclEdgeTest, FailureOfCudaGetsTheEdgesName) {
  connect();
  std::string in = ".";
  receive(in);
  fake->fail_event_queries();
  EXPECT_EQ(error_of([&] { receiver.progress(); }),
            "edge from rank 0 to rank 1: CUDA: an illegal memory access was encountered");
}

TEST_F(NcclEdgeTest, UnknownTicketsAreRefused) {
  connect();
  EXPECT_THROW(sender.done(0), std::out_of_range);
  EXPECT_THROW(receiver.order_compute_after(0), std::out_of_range);
}

class NcclEdgeStallTest : public NcclEdgeTest {
 protected:
  NcclEdgeStallTest() : NcclEdgeTest(milliseconds(400)) {}
};

TEST_F(NcclEdgeStallTest, ReceiveWithoutSendIsAnErrorThatSaysHowLongItWaited) {
  connect();
  std::string in(9, '.');
  receive(in);
  const std::string text = error_of([&] {
    for (;;) receiver.progress();
  });
  EXPECT_THAT(text, AllOf(HasSubstr("edge from rank 0 to rank 1: receive 0 (9 bytes, posted "),
                          ContainsRegex("does not go forward for [0-9.]+ s: "),
                          HasSubstr("the other end has not posted its part")));
}

TEST_F(NcclEdgeStallTest, OperationThatNcclDoesNotStartIsSaidToBeSo) {
  connect();
  fake->issue_polls = FakeNccl::kNever;
  std::string out = "x";
  send(out);
  EXPECT_THAT(error_of([&] {
                for (;;) sender.progress();
              }),
              HasSubstr("NCCL has not put it on the stream"));
}

TEST_F(NcclEdgeStallTest, TurnThatIsNotGivenBackIsAnErrorOfTheEdgeThatHasIt) {
  NcclEdge onward(fake, receiver_turn, "edge from rank 1 to rank 2", 0, kPatience);
  NcclId other{};
  fake->get_unique_id(other);
  connect();
  onward.connect(other, kPatience);
  fake->issue_polls = FakeNccl::kNever;
  std::string in = ".";
  std::string out = "?!";
  receive(in);
  onward.post(NcclOperation::send, out.data(), out.size());
  const Clock::time_point start = Clock::now();
  EXPECT_THAT(error_of([&] {
                while (Clock::now() - start < kPatience) onward.progress();
              }),
              AllOf(HasSubstr("edge from rank 0 to rank 1: receive 0"),
                    HasSubstr("NCCL has not put it on the stream")));
}

// A host that was busy elsewhere has not seen a stall.
TEST_F(NcclEdgeStallTest, TimeBetweenCallsAloneIsNoStall) {
  connect();
  fake->issue_polls = 1;
  std::string in = ".";
  receive(in);
  std::this_thread::sleep_for(milliseconds(600));
  receiver.progress();  // only now it is seen to be on the stream
  std::string out = "x";
  send(out);
  pump(3);
  EXPECT_TRUE(receiver.done(0));
}

TEST_F(NcclEdgeStallTest, NothingToDoIsNoStall) {
  connect();
  std::this_thread::sleep_for(milliseconds(600));
  EXPECT_NO_THROW(pump(1));
}

}  // namespace
}  // namespace penstock::comm
