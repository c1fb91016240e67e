#include "jobs/flight_recorder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/support/program.hpp"

namespace penstock::jobs {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

std::vector<std::string> written(const FlightRecorder& recorder) {
  const tests::TemporaryFolder workplace;
  const std::string path = workplace / "flight-0003.log";
  recorder.write(path);
  return tests::lines_of(tests::read_bytes(path));
}

TEST(FlightRecorder, WritesOneEventALineNewestLast) {
  FlightRecorder recorder("stage 3, rank 3, host a");
  recorder.note(FlightEvent::plan_received, 7, 2, 160);
  recorder.note(FlightEvent::forward_begin, 7, 2, 33);
  recorder.note(FlightEvent::beats_missed, FlightRecorder::kNone, FlightRecorder::kNone, 1);
  const std::vector<std::string> lines = written(recorder);
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0], "stage 3, rank 3, host a: the last 3 of 3 events");
  const std::string time = "^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{6}Z  ";
  EXPECT_THAT(lines[1], ContainsRegex(time + "plan received +step 7 slot 2  bytes 160$"));
  EXPECT_THAT(lines[2], ContainsRegex(time + "forward begins +step 7 slot 2  rows 33$"));
  EXPECT_THAT(lines[3], ContainsRegex(time + "heartbeats missed +stage 1$"));
  EXPECT_LE(lines[1].substr(0, 27), lines[3].substr(0, 27));
}

TEST(FlightRecorder, KeepsTheLastEvents) {
  FlightRecorder recorder("stage 0");
  for (std::uint64_t step = 0; step < 1000; ++step) {
    recorder.note(FlightEvent::send_posted, step, 0, 1);
  }
  const std::vector<std::string> lines = written(recorder);
  ASSERT_EQ(lines.size(), 1 + FlightRecorder::kEvents);
  EXPECT_EQ(lines[0], "stage 0: the last 256 of 1000 events");
  for (std::size_t i = 0; i < FlightRecorder::kEvents; ++i) {
    EXPECT_THAT(lines[1 + i], HasSubstr("step " + std::to_string(1000 - 256 + i) + " "));
  }
}

TEST(FlightRecorder, EveryEventHasItsName) {
  FlightRecorder recorder("stage 0");
  const std::vector<std::string> names = {"plan received",  "receive posted", "activations arrived",
                                          "forward begins", "forward ends",   "send posted",
                                          "tokens sent",    "tokens arrived", "heartbeats missed",
                                          "asked to stop"};
  for (std::size_t i = 0; i < names.size(); ++i) {
    recorder.note(static_cast<FlightEvent>(i), 1, 0, 0);
  }
  const std::vector<std::string> lines = written(recorder);
  ASSERT_EQ(lines.size(), 1 + names.size());
  for (std::size_t i = 0; i < names.size(); ++i) EXPECT_THAT(lines[1 + i], HasSubstr(names[i]));
}

TEST(FlightRecorder, WithoutEventsSaysSo) {
  EXPECT_THAT(written(FlightRecorder("stage 0")),
              testing::ElementsAre("stage 0: the last 0 of 0 events"));
}

TEST(FlightRecorder, APlaceThatCannotBeWrittenIsNoFailure) {
  FlightRecorder recorder("stage 0");
  recorder.note(FlightEvent::signal, 0, 0, 1);
  recorder.write("/no/such/folder/flight-0000.log");
  const tests::TemporaryFolder workplace;
  recorder.write(workplace / "");
}

TEST(FlightRecorder, TakesEventsOfManyThreads) {
  FlightRecorder recorder("stage 0");
  {
    std::vector<std::jthread> threads;
    for (std::uint64_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 1000; ++i) recorder.note(FlightEvent::tokens_arrived, t, t, t);
      });
    }
    for (int i = 0; i < 20; ++i) written(recorder);
  }
  const std::vector<std::string> lines = written(recorder);
  EXPECT_EQ(lines[0], "stage 0: the last 256 of 4000 events");
  for (std::size_t i = 1; i < lines.size(); ++i) {
    EXPECT_THAT(lines[i], ContainsRegex("step ([0-3]) slot ([0-3])  ids [0-3]$"));
  }
}

}  // namespace
}  // namespace penstock::jobs
