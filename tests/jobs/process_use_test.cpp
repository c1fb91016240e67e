#include "jobs/process_use.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace penstock::jobs {
namespace {

using namespace std::chrono_literals;

void compute_for(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

TEST(ProcessUse, PeakOfMemoryStays) {
  const std::uint64_t before = ProcessMeter().use().peak_memory_bytes;
  EXPECT_GT(before, 1'000'000U);
  constexpr std::size_t kBytes = 300'000'000;  // more than any test before it had
  { const std::vector<char> touched(kBytes, 1); }
  EXPECT_GT(ProcessMeter().use().peak_memory_bytes, kBytes);
}

TEST(ProcessUse, CountsOpenFiles) {
  const ProcessMeter meter;
  const std::uint64_t before = meter.use().open_files;
  const std::ifstream one("/dev/null");
  const std::ifstream two("/dev/null");
  EXPECT_EQ(meter.use().open_files, before + 2);
}

TEST(ProcessUse, TimeIsThatOfTheThread) {
  const ProcessMeter meter;
  std::thread(compute_for, 200ms).join();
  EXPECT_LT(meter.use().thread_seconds, 0.1);
  // A busy machine may give the thread less than it computes by the clock.
  while (meter.use().thread_seconds < 0.05) compute_for(10ms);
  EXPECT_EQ(ProcessMeter().use().thread_seconds < 0.05, true);
}

TEST(ProcessUse, AgeIsWhatPsSays) {
  std::this_thread::sleep_for(1100ms);
  const std::string command = "ps -o etimes= -p " + std::to_string(getpid());
  FILE* const ps = popen(command.c_str(), "r");
  ASSERT_NE(ps, nullptr);
  std::array<char, 64> text{};
  const bool read = std::fgets(text.data(), text.size(), ps) != nullptr;
  ASSERT_EQ(pclose(ps), 0);
  ASSERT_TRUE(read);
  const double whole_seconds = std::stod(text.data());
  EXPECT_GE(process_age_seconds(), whole_seconds);
  EXPECT_GE(whole_seconds, 1);
  EXPECT_LT(process_age_seconds(), whole_seconds + 60);
}

}  // namespace
}  // namespace penstock::jobs
