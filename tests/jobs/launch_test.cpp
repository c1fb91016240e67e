#include "jobs/launch.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "comm/error.hpp"

namespace penstock::jobs {
namespace {

using comm::Endpoint;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr std::chrono::seconds kTimeout{30};

// ---- the layout

struct Choice {
  int world = 1;
  int launched = 0;
  LinkKind kind = LinkKind::automatic;
  int stages = 0;
  LinkKind link = LinkKind::local;  // what is expected
  int expected_stages = 1;
  int replicas = 0;
  int expected_replicas = 1;
};

TEST(ChooseLayout, FitsTheWorld) {
  constexpr LinkKind kAuto = LinkKind::automatic;
  constexpr LinkKind kLocal = LinkKind::local;
  constexpr LinkKind kMpi = LinkKind::mpi;
  constexpr LinkKind kNccl = LinkKind::nccl;
  for (const Choice& c : {
           Choice{1, 0, kAuto, 0, kLocal, 1},  // started without a launcher
           Choice{1, 1, kAuto, 0, kLocal, 1},  // mpirun -n 1
           Choice{1, 0, kAuto, 1, kLocal, 1},
           Choice{1, 0, kAuto, 4, kLocal, 4},
           Choice{1, 0, kLocal, 0, kLocal, 1},
           Choice{1, 1, kLocal, 3, kLocal, 3},
           Choice{1, 0, kMpi, 0, kMpi, 1},
           Choice{1, 1, kMpi, 1, kMpi, 1},
           Choice{4, 4, kAuto, 0, kMpi, 4},
           Choice{4, 4, kAuto, 4, kMpi, 4},
           Choice{4, 4, kMpi, 0, kMpi, 4},
           Choice{4, 4, kMpi, 4, kMpi, 4},
           Choice{4, 4, kNccl, 0, kNccl, 4},
           Choice{1, 0, kNccl, 0, kNccl, 1},
           Choice{4, 0, kAuto, 0, kMpi, 4},  // a launcher that says nothing
           Choice{2, 8, kAuto, 0, kMpi, 2},  // a part of a larger allocation
           // Replicas, said or following from the ranks.
           Choice{8, 8, kAuto, 2, kMpi, 2, 4, 4},
           Choice{8, 8, kAuto, 0, kMpi, 2, 4, 4},
           Choice{8, 8, kAuto, 2, kMpi, 2, 0, 4},
           Choice{8, 8, kAuto, 8, kMpi, 8, 0, 1},
           Choice{4, 4, kAuto, 0, kMpi, 1, 4, 4},
           Choice{4, 4, kAuto, 1, kMpi, 1, 0, 4},
           Choice{4, 4, kNccl, 2, kNccl, 2, 0, 2},
           Choice{4, 4, kMpi, 0, kMpi, 4, 1, 1},
           Choice{128, 128, kAuto, 16, kMpi, 16, 8, 8},  // acceptance of 405B
           Choice{1, 0, kAuto, 3, kLocal, 3, 2, 2},
           Choice{1, 0, kAuto, 0, kLocal, 1, 2, 2},
       }) {
    SCOPED_TRACE(testing::Message()
                 << c.world << " ranks, launched " << c.launched << ", --link " << to_string(c.kind)
                 << " --stages " << c.stages << " --replicas " << c.replicas);
    const Layout layout = choose_layout(c.world, c.launched, c.kind, c.stages, c.replicas);
    EXPECT_EQ(layout.link, c.link);
    EXPECT_EQ(layout.stages, c.expected_stages);
    EXPECT_EQ(layout.replicas, c.expected_replicas);
  }
}

TEST(ChooseLayout, WrongUseSaysWhatToDo) {
  const auto chosen = [](int world, int launched, LinkKind kind, int stages, int replicas = 0) {
    return [=] { choose_layout(world, launched, kind, stages, replicas); };
  };
  EXPECT_THAT(chosen(4, 4, LinkKind::local, 0),
              ThrowsMessage<UsageError>(AllOf(HasSubstr("--link local"), HasSubstr("4 ranks"))));
  EXPECT_THAT(chosen(4, 4, LinkKind::local, 4), ThrowsMessage<UsageError>(HasSubstr("4 ranks")));
  const auto refused = [](const auto&... parts) {
    return ThrowsMessage<UsageError>(AllOf(HasSubstr(parts)...));
  };
  EXPECT_THAT(chosen(4, 4, LinkKind::automatic, 3),
              refused("--stages 3", "multiple of 3", "but 4", "(-n), for example 3"));
  EXPECT_THAT(chosen(8, 8, LinkKind::automatic, 0, 3),
              refused("--replicas 3", "but 8", "(-n), for example 6", "leave --replicas out"));
  EXPECT_THAT(chosen(2, 2, LinkKind::automatic, 0, 4), refused("(-n), for example 4"));
  EXPECT_THAT(chosen(8, 8, LinkKind::automatic, 2, 3),
              refused("--replicas 3 of --stages 2 need 6 ranks", "but 8", "(-n)"));
  EXPECT_THAT(chosen(4, 4, LinkKind::automatic, 2, 1),
              refused("--stages 2", "one pipeline", "but 4", "-n"));
  EXPECT_THAT(chosen(4, 4, LinkKind::automatic, 0, -1), refused("--replicas -1"));
  EXPECT_THAT(chosen(4, 4, LinkKind::automatic, 0, 10'001), refused("give 1 to 10000"));
  EXPECT_THAT(chosen(1, 0, LinkKind::automatic, 100, 3), refused("300 stages", "at most 256"));
  // No product overflows.
  EXPECT_THAT(chosen(4, 4, LinkKind::automatic, 2'000'000'000, 10'000), refused("but 4"));
  EXPECT_THAT(chosen(1, 1, LinkKind::mpi, 2), ThrowsMessage<UsageError>(HasSubstr("--stages 2")));
  EXPECT_THAT(chosen(1, 0, LinkKind::automatic, -1),
              ThrowsMessage<UsageError>(HasSubstr("--stages")));
  EXPECT_THAT(chosen(3, 3, LinkKind::automatic, -3),
              ThrowsMessage<UsageError>(HasSubstr("--stages")));
}

TEST(ChooseLayout, ManyWorldsOfOneAreRefused) {
  for (const LinkKind kind : {LinkKind::automatic, LinkKind::local, LinkKind::mpi}) {
    EXPECT_THAT([&] { choose_layout(1, 4, kind, 0, 0); },
                ThrowsMessage<UsageError>(AllOf(HasSubstr("4 processes"), HasSubstr("--mpi="))));
  }
}

TEST(LinkKinds, HaveTheNamesOfTheOption) {
  EXPECT_EQ(to_string(LinkKind::automatic), "auto");
  EXPECT_EQ(to_string(LinkKind::local), "local");
  EXPECT_EQ(to_string(LinkKind::mpi), "mpi");
}

// ---- threads

TEST(RunThreads, EachStageOnAThreadOfItsOwnTheFirstOnTheCaller) {
  std::mutex mutex;
  std::set<int> members;
  std::set<std::thread::id> threads;
  std::thread::id first;
  const int result = run_threads(4, 1, [&](Endpoint& endpoint) {
    const auto names = endpoint.control->all_gather("x", "a test", kTimeout);
    const std::lock_guard lock(mutex);
    EXPECT_EQ(names.size(), 4u);
    EXPECT_EQ(endpoint.control->size(), 4);
    const int member = endpoint.control->member();
    EXPECT_EQ(endpoint.previous == nullptr, member == 0);
    EXPECT_EQ(endpoint.next == nullptr, member == 3);
    members.insert(member);
    threads.insert(std::this_thread::get_id());
    if (member == 0) first = std::this_thread::get_id();
    return 40 + member;
  });
  EXPECT_EQ(result, 40) << "what stage 0 returned";
  EXPECT_EQ(members, (std::set<int>{0, 1, 2, 3}));
  EXPECT_EQ(threads.size(), 4u);
  EXPECT_EQ(first, std::this_thread::get_id());
}

// Waits for bytes that never come, until the neighbour's end ends the wait.
[[noreturn]] void wait_for_ever(Endpoint& endpoint) {
  std::array<std::byte, 8> buffer{};
  if (endpoint.previous) {
    const comm::Ticket ticket = endpoint.previous->receive(buffer);
    while (!endpoint.previous->done(ticket)) std::this_thread::yield();
  } else {
    endpoint.control->all_gather("", "a test", kTimeout);
  }
  throw std::logic_error("a wait for nothing ended well");
}

class Cause : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

TEST(RunThreads, TheCauseIsRethrownAndNotItsEchoes) {
  constexpr int kStages = 4;
  for (int guilty = 0; guilty < kStages; ++guilty) {
    SCOPED_TRACE(guilty);
    std::atomic<int> echoes = 0;
    EXPECT_THAT(
        [&] {
          run_threads(kStages, 1, [&](Endpoint& endpoint) -> int {
            if (endpoint.control->member() == guilty) throw Cause("the tensor is missing");
            try {
              wait_for_ever(endpoint);
            } catch (const comm::CommError&) {
              ++echoes;
              throw;
            }
          });
        },
        ThrowsMessage<Cause>("the tensor is missing"));
    EXPECT_EQ(echoes, kStages - 1);
  }
}

// A CommError can be the cause too: then it is the first.
TEST(RunThreads, TheFirstOfCommErrorsIsTheCause) {
  for (int guilty = 0; guilty < 4; ++guilty) {
    EXPECT_THAT(
        [&] {
          run_threads(4, 1, [&](Endpoint& endpoint) -> int {
            if (endpoint.control->member() == guilty) throw comm::CommError("an unknown message");
            wait_for_ever(endpoint);
          });
        },
        ThrowsMessage<comm::CommError>("an unknown message"))
        << guilty;
  }
}

TEST(RunThreads, OfAnAgreementTheOneThatReportsIsRethrown) {
  for (int guilty = 0; guilty < 3; ++guilty) {
    try {
      run_threads(3, 1, [&](Endpoint& endpoint) {
        const bool ok = endpoint.control->member() != guilty;
        endpoint.control->agree(ok, ok ? "" : "no such checkpoint", "opening", kTimeout);
        ADD_FAILURE() << "agreed";
        return 0;
      });
      ADD_FAILURE() << "nothing was thrown";
    } catch (const comm::AgreeError& e) {
      EXPECT_STREQ(e.what(), "no such checkpoint");
      EXPECT_TRUE(e.reported) << guilty;
    }
  }
}

TEST(RunThreads, ReplicasAreRowsOfConsecutiveThreads) {
  std::mutex mutex;
  std::set<std::string> seen;
  const int result = run_threads(2, 3, [&](Endpoint& endpoint) {
    const int member = endpoint.control->member();
    const int thread = endpoint.all().member();
    EXPECT_EQ(endpoint.control->size(), 2);
    EXPECT_EQ(endpoint.all().size(), 6);
    EXPECT_EQ(thread, endpoint.pipeline * 2 + member);
    EXPECT_EQ(endpoint.control->describe(member), "thread " + std::to_string(thread));
    EXPECT_EQ(endpoint.firsts != nullptr, member == 0);
    if (endpoint.firsts) {
      EXPECT_EQ(endpoint.firsts->member(), endpoint.pipeline);
      EXPECT_EQ(endpoint.firsts->size(), 3);
      EXPECT_EQ(endpoint.firsts->describe(2), "thread 4");
    }
    const std::lock_guard lock(mutex);
    seen.insert(stage_name(endpoint));
    return 10 + thread;
  });
  EXPECT_EQ(result, 10);  // of the first
  EXPECT_THAT(
      seen, testing::ElementsAre("replica 0, stage 0", "replica 0, stage 1", "replica 1, stage 0",
                                 "replica 1, stage 1", "replica 2, stage 0", "replica 2, stage 1"));
}

TEST(RunThreads, ALateFailureAfterTheOthersEndedIsSeen) {
  EXPECT_THAT(
      [] {
        run_threads(3, 1, [](Endpoint& endpoint) {
          endpoint.control->all_gather("", "the end", kTimeout);
          if (endpoint.control->member() == 2) throw Cause("the disk is full");
          return 0;
        });
      },
      ThrowsMessage<Cause>("the disk is full"));
}

}  // namespace
}  // namespace penstock::jobs
