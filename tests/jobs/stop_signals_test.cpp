#include "jobs/stop_signals.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

namespace penstock::jobs {
namespace {

using namespace std::chrono_literals;
using enum StopRequest;
using testing::ElementsAre;

// What the callback was told, in order.
class Told {
 public:
  void operator()(StopRequest request) {
    const std::lock_guard lock(mutex_);
    requests_.push_back(request);
    changed_.notify_all();
  }
  // What was told once there are `count` of them; fewer after 20 s.
  std::vector<StopRequest> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, 20s, [&] { return requests_.size() >= count; });
    return requests_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<StopRequest> requests_;
};

auto into(Told& told) {
  return [&told](StopRequest request) { told(request); };
}

TEST(StopSignals, NothingIsRequestedAtFirst) { EXPECT_EQ(StopSignals().request(), none); }

TEST(StopSignals, UserSignalsDrain) {
  for (const int signal : {SIGUSR1, SIGUSR2}) {
    StopSignals signals;
    raise(signal);
    EXPECT_EQ(signals.request(), drain);
    raise(signal);
    EXPECT_EQ(signals.request(), drain);
  }
}

TEST(StopSignals, EndSignalsTerminate) {
  for (const int signal : {SIGTERM, SIGINT}) {
    StopSignals signals;
    signals.take_end_signals();
    raise(signal);
    EXPECT_EQ(signals.request(), terminate);
  }
}

TEST(StopSignals, SecondInterruptStopsNow) {
  StopSignals signals;
  signals.take_end_signals();
  raise(SIGTERM);
  raise(SIGTERM);
  raise(SIGINT);
  EXPECT_EQ(signals.request(), terminate);
  raise(SIGINT);
  EXPECT_EQ(signals.request(), stop_now);
}

TEST(StopSignals, LessUrgentOnesChangeNothing) {
  StopSignals signals;
  signals.take_end_signals();
  raise(SIGTERM);
  raise(SIGUSR1);
  EXPECT_EQ(signals.request(), terminate);
}

TEST(StopSignals, CallbackIsToldOfEachRise) {
  Told told;
  StopSignals signals;
  signals.take_end_signals();
  signals.on_request(into(told));
  raise(SIGUSR1);
  EXPECT_THAT(told.wait_for(1), ElementsAre(drain));
  raise(SIGUSR2);
  raise(SIGINT);
  EXPECT_THAT(told.wait_for(2), ElementsAre(drain, terminate));
  raise(SIGINT);
  EXPECT_THAT(told.wait_for(3), ElementsAre(drain, terminate, stop_now));
}

TEST(StopSignals, CallbackThatComesLateIsToldWhatThereIs) {
  Told told;
  StopSignals signals;
  raise(SIGUSR1);
  signals.on_request(into(told));
  EXPECT_THAT(told.wait_for(1), ElementsAre(drain));
}

TEST(StopSignals, NewCallbackIsToldToo) {
  Told first;
  Told second;
  StopSignals signals;
  signals.on_request(into(first));
  raise(SIGUSR1);
  EXPECT_THAT(first.wait_for(1), ElementsAre(drain));
  signals.on_request(into(second));
  EXPECT_THAT(second.wait_for(1), ElementsAre(drain));
}

TEST(StopSignals, RemovedCallbackIsNotRunning) {
  StopSignals signals;
  signals.take_end_signals();
  for (int i = 0; i < 200; ++i) {
    bool alive = true;  // no atomic: a thread sanitizer sees a callback that runs on
    signals.on_request([&alive](StopRequest) { alive = !alive; });
    raise(SIGUSR1);
    signals.on_request({});
    alive = false;
  }
}

TEST(StopSignals, OldHandlersComeBack) {
  static std::atomic<int> before{0};
  for (const int signal : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT}) {
    const auto old = ::signal(signal, [](int) { ++before; });
    before = 0;
    {
      StopSignals signals;
      signals.take_end_signals();
      signals.take_end_signals();  // a second call changes nothing
      raise(signal);
    }
    EXPECT_EQ(before, 0);
    raise(signal);
    EXPECT_EQ(before, 1);
    ::signal(signal, old);
  }
}

// Stages that are threads of one process.
TEST(StopSignals, SeveralThreadsMayTakeThem) {
  static std::atomic<int> before{0};
  const auto old = ::signal(SIGTERM, [](int) { ++before; });
  for (int i = 0; i < 50; ++i) {
    StopSignals signals;
    std::vector<std::thread> stages;
    for (int stage = 0; stage < 4; ++stage) {
      stages.emplace_back([&signals] { signals.take_end_signals(); });
    }
    for (std::thread& stage : stages) stage.join();
    raise(SIGTERM);
    EXPECT_EQ(signals.request(), terminate);
  }
  EXPECT_EQ(before, 0);
  raise(SIGTERM);
  EXPECT_EQ(before, 1);
  ::signal(SIGTERM, old);
}

TEST(StopSignals, AnotherObjectBeginsAnew) {
  {
    StopSignals signals;
    signals.take_end_signals();
    raise(SIGINT);
  }
  StopSignals signals;
  signals.take_end_signals();
  EXPECT_EQ(signals.request(), none);
  raise(SIGINT);
  EXPECT_EQ(signals.request(), terminate);
}

TEST(StopSignals, OneObjectAtATime) {
  StopSignals signals;
  EXPECT_THROW(StopSignals(), std::logic_error);
  raise(SIGUSR1);  // the refused one has taken nothing away
  EXPECT_EQ(signals.request(), drain);
}

TEST(StopSignals, InterruptThatIsIgnoredStaysSo) {
  const auto old = ::signal(SIGINT, SIG_IGN);
  {
    StopSignals signals;
    signals.take_end_signals();
    raise(SIGINT);
    EXPECT_EQ(signals.request(), none);
    raise(SIGTERM);
    EXPECT_EQ(signals.request(), terminate);
  }
  ::signal(SIGINT, old);
}

TEST(StopSignals, ThreadThatWasThereBeforeAndReadsIsNotDisturbed) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  std::atomic<ssize_t> got{-2};
  std::thread reader([&] {
    char byte = 0;
    got = read(ends[0], &byte, 1);
  });
  StopSignals signals;
  for (int i = 0; i < 50; ++i) {
    pthread_kill(reader.native_handle(), SIGUSR1);
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_EQ(got, -2);
  ASSERT_EQ(write(ends[1], "x", 1), 1);
  reader.join();
  EXPECT_EQ(got, 1);
  EXPECT_EQ(signals.request(), drain);
  close(ends[0]);
  close(ends[1]);
}

TEST(StopSignals, EndsWhileSignalsCome) {
  const auto old = ::signal(SIGUSR1, SIG_IGN);
  std::atomic<bool> end{false};
  std::atomic<std::uint64_t> sent{0};
  std::thread sender([&] {
    while (!end) {
      kill(getpid(), SIGUSR1);
      ++sent;
    }
  });
  for (int i = 0; i < 300; ++i) {
    Told told;
    StopSignals signals;
    signals.on_request(into(told));
    EXPECT_THAT(told.wait_for(1), ElementsAre(drain));
    signals.on_request({});
  }
  end = true;
  sender.join();
  ::signal(SIGUSR1, old);
}

class StopSignalsDeathTest : public testing::Test {
 protected:
  StopSignalsDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(StopSignalsDeathTest, BeforeTheJobBeginsItJustEnds) {
  for (const int signal : {SIGTERM, SIGINT}) {
    EXPECT_EXIT(
        {
          StopSignals signals;
          raise(signal);
        },
        testing::KilledBySignal(signal), "");
  }
}

TEST_F(StopSignalsDeathTest, ThirdInterruptEnds) {
  EXPECT_EXIT(
      {
        StopSignals signals;
        signals.take_end_signals();
        raise(SIGINT);
        raise(SIGINT);
        raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace penstock::jobs
