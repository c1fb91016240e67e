#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "comm/error.hpp"
#include "comm/link.hpp"
#include "comm/wait.hpp"

// One body of tests for all transports: a test program includes this header once and instantiates
// EndpointTest with its transports.

namespace penstock::comm {

// `run` makes the endpoints, has every member run the body with its own, and returns when all have
// finished: threads of this process, or the ranks of the MPI world (then the body runs here once).
// What a body throws comes out of `run`.
struct Transport {
  std::string name;
  std::function<void(const std::function<void(Endpoint&)>& body)> run;
};

class EndpointTest : public testing::TestWithParam<Transport> {};

inline std::string transport_name(const testing::TestParamInfo<Transport>& info) {
  return info.param.name;
}

// Only ends tests that would hang.
constexpr std::chrono::seconds kPatience{60};

inline std::vector<std::byte> pattern(std::size_t size_bytes, std::size_t seed) {
  std::vector<std::byte> bytes(size_bytes);
  for (std::size_t i = 0; i < size_bytes; ++i) {
    bytes[i] = static_cast<std::byte>((i * 2654435761U + seed * 97U) >> 7U);
  }
  return bytes;
}

inline ControlMessage receive_message(Control& control) {
  Wait wait([&] { return fmt::format("message at {}", control.describe(control.member())); },
            kPatience);
  for (;;) {
    if (std::optional<ControlMessage> message = control.try_receive()) return *std::move(message);
    wait.pause();
  }
}

// Of a sender or a receiver.
template <typename Link>
void finish(Link& link, Ticket ticket) {
  Wait wait([&] { return fmt::format("completion of ticket {}", ticket); }, kPatience);
  while (!link.done(ticket)) wait.pause();
}

inline std::string text_of(const ControlMessage& message) {
  return {reinterpret_cast<const char*>(message.bytes.data()), message.bytes.size()};
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST_P(EndpointTest, HasAnEdgeToEachNeighbour) {
  GetParam().run([](Endpoint& endpoint) {
    const Control& control = *endpoint.control;
    EXPECT_EQ(endpoint.previous == nullptr, control.member() == 0);
    EXPECT_EQ(endpoint.next == nullptr, control.member() == control.size() - 1);
    for (int i = 0; i < control.size(); ++i) {
      EXPECT_NE(control.describe(i).find(std::to_string(i)), std::string::npos);
    }
  });
}

TEST_P(EndpointTest, ControlMessagesOfASenderArriveInOrder) {
  constexpr int kMessages = 300;
  GetParam().run([](Endpoint& endpoint) {
    Control& control = *endpoint.control;
    for (int i = 0; i < kMessages; ++i) {
      for (int to = 0; to < control.size(); ++to) {
        // Sizes on both sides of MPI's eager limits.
        const std::string filler(i % 50 == 0 ? 100000 : static_cast<std::size_t>(i % 7), 'x');
        control.send(to, bytes_of(std::to_string(i) + " " + filler));
      }
    }
    std::vector<int> next(static_cast<std::size_t>(control.size()), 0);
    for (int i = 0; i < kMessages * control.size(); ++i) {
      const ControlMessage message = receive_message(control);
      int& expected = next.at(static_cast<std::size_t>(message.from));
      const std::size_t filler =
          expected % 50 == 0 ? 100000 : static_cast<std::size_t>(expected % 7);
      ASSERT_EQ(text_of(message), std::to_string(expected) + " " + std::string(filler, 'x'));
      ++expected;
    }
    EXPECT_FALSE(control.try_receive());
    control.all_gather("", "end of the test", kPatience);
  });
}

TEST_P(EndpointTest, ControlMessagesMayBeEmptyOrLarge) {
  GetParam().run([](Endpoint& endpoint) {
    Control& control = *endpoint.control;
    const int to = (control.member() + 1) % control.size();
    const int from = (control.member() + control.size() - 1) % control.size();
    // All send before any of them receives, and the sender's buffer is not needed any more.
    for (const std::size_t size_bytes : {std::size_t{0}, std::size_t{5000000}, std::size_t{0}}) {
      std::vector<std::byte> bytes = pattern(size_bytes, static_cast<std::size_t>(to));
      control.send(to, bytes);
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
    }
    for (const std::size_t size_bytes : {std::size_t{0}, std::size_t{5000000}, std::size_t{0}}) {
      const ControlMessage message = receive_message(control);
      EXPECT_EQ(message.from, from);
      EXPECT_TRUE(message.bytes == pattern(size_bytes, static_cast<std::size_t>(control.member())));
    }
    control.all_gather("", "end of the test", kPatience);
  });
}

TEST_P(EndpointTest, MessagesToNobodyAreRefused) {
  GetParam().run([](Endpoint& endpoint) {
    Control& control = *endpoint.control;
    EXPECT_THROW(control.send(-1, {}), std::out_of_range);
    EXPECT_THROW(control.send(control.size(), {}), std::out_of_range);
  });
}

TEST_P(EndpointTest, AllGatherGivesEveryPartToEveryMember) {
  GetParam().run([](Endpoint& endpoint) {
    Control& control = *endpoint.control;
    for (int round = 0; round < 50; ++round) {
      const auto part = [&](int member) {
        const int length = (member * 7 + round * 3) % 11;
        return std::string(static_cast<std::size_t>(length), static_cast<char>('a' + member));
      };
      const std::vector<std::string> all =
          control.all_gather(part(control.member()), "parts", kPatience);
      ASSERT_EQ(all.size(), static_cast<std::size_t>(control.size()));
      for (int i = 0; i < control.size(); ++i) {
        ASSERT_EQ(all[static_cast<std::size_t>(i)], part(i)) << "round " << round;
      }
    }
  });
}

TEST_P(EndpointTest, AgreeThrowsTheTextOfTheLowestFailingMember) {
  GetParam().run([](Endpoint& endpoint) {
    Control& control = *endpoint.control;
    control.agree(true, "not printed", "agreement", kPatience);
    const int lowest = std::min(1, control.size() - 1);
    try {
      control.agree(control.member() < lowest, fmt::format("broken {}", control.member()),
                    "agreement", kPatience);
      ADD_FAILURE() << "no exception";
    } catch (const AgreeError& error) {
      EXPECT_EQ(std::string(error.what()), fmt::format("broken {}", lowest));
      EXPECT_EQ(error.reported, control.member() == lowest);
    }
    control.agree(true, "", "agreement", kPatience);  // still in step
  });
}

// Beats until all members have done so much work, as far as this one knows.
inline void beat_until_all_have_done(Control& control,
                                     const std::function<std::uint64_t(int member)>& work_of) {
  Wait wait([] { return std::string("heartbeats"); }, kPatience);
  const auto all_have = [&] {
    for (int i = 0; i < control.size(); ++i) {
      if (control.pulse(i).progress < work_of(i)) return false;
    }
    return true;
  };
  while (!all_have()) {
    control.beat(0);
    wait.pause();
  }
}

TEST_P(EndpointTest, HeartbeatsTellEverybodyOfEverybodysWork) {
  GetParam().run([](Endpoint& endpoint) {
    Control& control = *endpoint.control;
    const Clock::time_point start = Clock::now();
    const auto work_of = [](int member) { return static_cast<std::uint64_t>(100 + 10 * member); };
    control.beat(work_of(control.member()) - 1);
    control.beat(1);
    EXPECT_EQ(control.pulse(control.member()).progress, work_of(control.member()));
    beat_until_all_have_done(control, work_of);
    for (int i = 0; i < control.size(); ++i) {
      const Pulse pulse = control.pulse(i);
      EXPECT_EQ(pulse.progress, work_of(i)) << i;
      EXPECT_GE(pulse.heard, pulse.moved) << i;
      // Ages are rounded down to milliseconds, and begin when the heartbeat is sent.
      EXPECT_GE(pulse.moved, start - std::chrono::seconds(2)) << i;
      EXPECT_LE(pulse.heard, Clock::now()) << i;
    }
    EXPECT_THROW(control.pulse(-1), std::out_of_range);
    EXPECT_THROW(control.pulse(control.size()), std::out_of_range);
    control.all_gather("", "end of the test", kPatience);
  });
}

TEST_P(EndpointTest, HeartbeatsAreNoMessagesAndNoParts) {
  GetParam().run([](Endpoint& endpoint) {
    Control& control = *endpoint.control;
    control.beat(1);
    beat_until_all_have_done(control, [](int) { return 1; });
    EXPECT_FALSE(control.try_receive());
    const std::vector<std::string> all =
        control.all_gather(std::to_string(control.member()), "parts", kPatience);
    for (int i = 0; i < control.size(); ++i) {
      EXPECT_EQ(all[static_cast<std::size_t>(i)], std::to_string(i));
    }
    EXPECT_FALSE(control.try_receive());
    control.all_gather("", "end of the test", kPatience);
  });
}

// A member works for three times as long as the others wait, and says so.
inline void all_gather_with_slow(int slow, Endpoint& endpoint, std::chrono::milliseconds timeout) {
  Control& control = *endpoint.control;
  if (control.member() == slow) {
    const Clock::time_point end = Clock::now() + 3 * timeout;
    while (Clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      control.beat(1);
    }
  }
  EXPECT_EQ(control.all_gather("x", "the work", timeout).size(),
            static_cast<std::size_t>(control.size()));
  control.all_gather("", "end of the test", kPatience);
}

// Member 0 makes the data, the others pass on what they get.
TEST_P(EndpointTest, LinkKeepsOrderAndContent) {
  constexpr std::size_t kMessages = 100;
  const auto size_of = [](std::size_t i) { return i % 10 == 3 ? 0 : (i * 7919) % 30000; };
  GetParam().run([&](Endpoint& endpoint) {
    std::vector<std::vector<std::byte>> buffers;
    for (std::size_t i = 0; i < kMessages; ++i) {
      buffers.push_back(endpoint.previous ? std::vector<std::byte>(size_of(i))
                                          : pattern(size_of(i), i));
    }
    std::vector<Ticket> received;
    if (endpoint.previous) {
      for (auto& buffer : buffers) received.push_back(endpoint.previous->receive(buffer));
    }
    std::vector<Ticket> sent;
    for (std::size_t i = 0; i < kMessages; ++i) {
      if (endpoint.previous) {
        finish(*endpoint.previous, received[i]);
        ASSERT_TRUE(buffers[i] == pattern(size_of(i), i)) << "message " << i;
      }
      if (endpoint.next) sent.push_back(endpoint.next->send(buffers[i]));
    }
    for (const Ticket ticket : sent) finish(*endpoint.next, ticket);
    // Tickets stay done.
    EXPECT_TRUE(sent.empty() || endpoint.next->done(sent.front()));
    EXPECT_TRUE(received.empty() || endpoint.previous->done(received.front()));
    endpoint.control->all_gather("", "end of the test", kPatience);
  });
}

TEST_P(EndpointTest, LinkReceivesWhatWasSentBefore) {
  GetParam().run([](Endpoint& endpoint) {
    const std::vector<std::byte> mine = pattern(18432, 1);
    Ticket sent = 0;
    if (endpoint.next) sent = endpoint.next->send(mine);
    // The send is posted on every member before any receive is.
    endpoint.control->all_gather("", "posted sends", kPatience);
    if (endpoint.previous) {
      std::vector<std::byte> theirs(mine.size());
      finish(*endpoint.previous, endpoint.previous->receive(theirs));
      EXPECT_TRUE(theirs == mine);
    }
    if (endpoint.next) finish(*endpoint.next, sent);
  });
}

// Large data forward on every edge and back to member 0 at once, all sent before anything is
// received.
TEST_P(EndpointTest, LargeMessagesInBothDirectionsDoNotDeadlock) {
  constexpr std::size_t kSize = 5000003;  // no multiple of any piece
  GetParam().run([](Endpoint& endpoint) {
    Control& control = *endpoint.control;
    const auto member = static_cast<std::size_t>(control.member());
    const std::vector<std::byte> mine = pattern(kSize, member);
    Ticket sent = 0;
    if (endpoint.next) sent = endpoint.next->send(mine);
    if (member != 0) control.send(0, mine);
    if (endpoint.previous) {
      std::vector<std::byte> theirs(kSize);
      finish(*endpoint.previous, endpoint.previous->receive(theirs));
      EXPECT_TRUE(theirs == pattern(kSize, member - 1));
    }
    if (endpoint.next) finish(*endpoint.next, sent);
    for (int i = 1; member == 0 && i < control.size(); ++i) {
      const ControlMessage message = receive_message(control);
      EXPECT_TRUE(message.bytes == pattern(kSize, static_cast<std::size_t>(message.from)));
    }
    control.all_gather("", "end of the test", kPatience);
  });
}

// The sender of a large message calls nothing but progress() until the receiver says it has all.
TEST_P(EndpointTest, ProgressAloneMovesASend) {
  GetParam().run([](Endpoint& endpoint) {
    Control& control = *endpoint.control;
    const std::vector<std::byte> mine = pattern(3000000, 5);
    std::vector<std::byte> theirs(mine.size());
    Ticket received = 0;
    Ticket sent = 0;
    if (endpoint.previous) received = endpoint.previous->receive(theirs);
    if (endpoint.next) sent = endpoint.next->send(mine);
    bool have_data = !endpoint.previous;
    bool have_word = !endpoint.next;
    Wait wait([] { return std::string("data and word of the neighbours"); }, kPatience);
    while (!have_data || !have_word) {
      if (!have_data && endpoint.previous->done(received)) {
        have_data = true;
        control.send(control.member() - 1, bytes_of("got it"));
      }
      if (!have_word) {
        endpoint.next->progress();
        have_word = control.try_receive().has_value();
      }
      wait.pause();
    }
    if (endpoint.next) finish(*endpoint.next, sent);
    EXPECT_TRUE(!endpoint.previous || theirs == mine);
    control.all_gather("", "end of the test", kPatience);
  });
}

TEST_P(EndpointTest, TicketsThatWereNotGivenAreRefused) {
  GetParam().run([](Endpoint& endpoint) {
    if (endpoint.previous) {
      EXPECT_THROW(endpoint.previous->done(0), std::out_of_range);
    }
    if (endpoint.next) {
      EXPECT_THROW(endpoint.next->done(7), std::out_of_range);
    }
    endpoint.control->all_gather("", "end of the test", kPatience);
  });
}

TEST_P(EndpointTest, SizesThatDifferAreAnError) {
  for (const std::size_t expected : {std::size_t{50}, std::size_t{150}}) {
    GetParam().run([&](Endpoint& endpoint) {
      const std::vector<std::byte> mine(100);
      std::vector<std::byte> theirs(expected);
      if (endpoint.next) endpoint.next->send(mine);
      if (endpoint.previous) {
        const Ticket ticket = endpoint.previous->receive(theirs);
        EXPECT_THROW(finish(*endpoint.previous, ticket), CommError);
      }
      // Buffers live until all are through.
      endpoint.control->all_gather("", "end of the test", kPatience);
    });
  }
}

// More than 2 GiB and than one default piece, over the first edge.
inline void send_more_than_2_gib(Endpoint& endpoint) {
  constexpr std::size_t kWords = (std::size_t{1} << 28) + 12345;
  const auto word = [](std::size_t i) {
    return static_cast<std::uint64_t>(i * 0x9E3779B97F4A7C15U);
  };
  std::vector<std::uint64_t> words(kWords);
  if (endpoint.next) {
    for (std::size_t i = 0; i < kWords; ++i) words[i] = word(i);
    finish(*endpoint.next, endpoint.next->send(std::as_bytes(std::span(words))));
  } else {
    finish(*endpoint.previous,
           endpoint.previous->receive(std::as_writable_bytes(std::span(words))));
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < kWords; ++i) wrong += words[i] != word(i) ? 1 : 0;
    EXPECT_EQ(wrong, 0U);
  }
}

}  // namespace penstock::comm
