#include "comm/local.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "tests/comm/endpoint_suite.hpp"
#include "tests/support/memory.hpp"

namespace penstock::comm {
namespace {

// Runs the bodies in threads; an endpoint is destroyed when its body ends.
void run_threads(int stages, const std::function<void(Endpoint&)>& body) {
  std::vector<Endpoint> endpoints = local_endpoints(stages);
  std::vector<std::exception_ptr> errors(endpoints.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    threads.emplace_back([&, i] {
      try {
        Endpoint endpoint = std::move(endpoints[i]);
        body(endpoint);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

Transport threads(int stages) {
  return {"Threads" + std::to_string(stages),
          [stages](const std::function<void(Endpoint&)>& body) { run_threads(stages, body); }};
}

INSTANTIATE_TEST_SUITE_P(Local, EndpointTest,
                         testing::Values(threads(1), threads(2), threads(3), threads(4)),
                         transport_name);

// The words of the CommError that `call` throws.
std::string comm_error(const std::function<void()>& call) {
  try {
    call();
  } catch (const CommError& error) {
    return error.what();
  }
  return "no CommError";
}

TEST(LocalEndpoints, NeedAStage) { EXPECT_THROW(local_endpoints(0), std::invalid_argument); }

TEST(LocalEndpoints, DestroyedMemberEndsTheWaitsOfItsPeers) {
  std::vector<Endpoint> endpoints = local_endpoints(3);
  std::vector<std::byte> buffer(10);
  const Ticket sent = endpoints[0].next->send(buffer);
  const Ticket received = endpoints[2].previous->receive(buffer);
  endpoints[1].control->send(0, bytes_of("last words"));
  EXPECT_FALSE(endpoints[0].next->done(sent));
  EXPECT_FALSE(endpoints[2].previous->done(received));
  EXPECT_FALSE(endpoints[2].control->try_receive());

  endpoints[1] = Endpoint{};
  const auto names_it = testing::HasSubstr("thread 1 has left");
  EXPECT_THAT(comm_error([&] { endpoints[0].next->done(sent); }), names_it);
  EXPECT_THAT(comm_error([&] { endpoints[0].next->send(buffer); }), names_it);
  EXPECT_THAT(comm_error([&] { endpoints[2].previous->done(received); }), names_it);
  EXPECT_THAT(comm_error([&] { endpoints[2].control->try_receive(); }), names_it);
  EXPECT_THAT(comm_error([&] { endpoints[2].control->send(1, {}); }), names_it);
  // What it sent while it was there still arrives.
  EXPECT_EQ(text_of(endpoints[0].control->try_receive().value()), "last words");
  EXPECT_THAT(comm_error([&] { endpoints[0].control->try_receive(); }), names_it);
}

TEST(LocalEndpoints, DestroyedMemberEndsAllGather) {
  std::vector<Endpoint> endpoints = local_endpoints(3);
  endpoints[1] = Endpoint{};
  const std::string text =
      comm_error([&] { endpoints[0].control->all_gather("", "the plan", kPatience); });
  EXPECT_THAT(text, testing::HasSubstr("thread 1 has left"));
  EXPECT_THAT(text, testing::HasSubstr("the plan"));
}

TEST(LocalEndpoints, AllGatherIsFinishedByMembersThatLeaveAfterwards) {
  std::vector<Endpoint> endpoints = local_endpoints(2);
  std::thread peer([endpoint = std::move(endpoints[1])] {
    endpoint.control->all_gather("b", "parts", kPatience);
  });
  EXPECT_THAT(endpoints[0].control->all_gather("a", "parts", kPatience),
              testing::ElementsAre("a", "b"));
  peer.join();
}

TEST(LocalEndpoints, AllGatherNamesWhoHasNotCome) {
  const std::vector<Endpoint> endpoints = local_endpoints(3);
  const std::string text = comm_error(
      [&] { endpoints[1].control->all_gather("", "the plan", std::chrono::milliseconds(20)); });
  EXPECT_EQ(text, "the plan: no word from thread 0; thread 2 for 0.02 s");
}

TEST(LocalEndpoints, AllGatherWaitsForWhoMakesProgress) {
  for (const int slow : {0, 2}) {
    run_threads(3, [&](Endpoint& endpoint) {
      all_gather_with_slow(slow, endpoint, std::chrono::milliseconds(500));
    });
  }
}

// Alive, but its work does not move.
TEST(LocalEndpoints, AllGatherNamesWhoOnlyLives) {
  std::vector<Endpoint> endpoints = local_endpoints(2);
  std::atomic<bool> over{false};
  std::thread peer([&] {
    while (!over) {
      endpoints[0].control->beat(0);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  const std::string text = comm_error(
      [&] { endpoints[1].control->all_gather("", "the plan", std::chrono::milliseconds(100)); });
  over = true;
  peer.join();
  EXPECT_EQ(text, "the plan: no word from thread 0 for 0.1 s");
}

TEST(LocalEndpoints, SenderMayLeaveWithDataNotTaken) {
  std::vector<Endpoint> endpoints = local_endpoints(2);
  std::vector<std::byte> received(10);
  const Ticket ticket = endpoints[1].previous->receive(received);
  {
    const std::vector<std::byte> gone(10);
    endpoints[0].next->send(gone);
    endpoints[0] = Endpoint{};
  }
  EXPECT_THROW(endpoints[1].previous->done(ticket), CommError);
}

TEST(LocalEndpoints, SenderMayGiveUpDataNotTaken) {
  std::vector<Endpoint> endpoints = local_endpoints(2);
  std::vector<std::byte> received(10);
  const Ticket ticket = endpoints[1].previous->receive(received);
  {
    const std::vector<std::byte> gone(10);
    endpoints[0].next->send(gone);
    endpoints[0].next->abort();
  }
  EXPECT_THAT(comm_error([&] { endpoints[1].previous->done(ticket); }),
              testing::HasSubstr("thread 0 has left"));
}

TEST(LocalEndpoints, CarryMoreThan2GiB) {
  if (support::available_memory_bytes() < std::size_t{6} << 30U) {
    GTEST_SKIP() << "needs 6 GiB of free memory";
  }
  run_threads(2, send_more_than_2_gib);
}

}  // namespace
}  // namespace penstock::comm
