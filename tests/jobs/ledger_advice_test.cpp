#include "jobs/ledger_advice.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace penstock::jobs {
namespace {

using ::testing::HasSubstr;

TEST(LeastBubble, ByHand) {
  EXPECT_DOUBLE_EQ(least_bubble(4, 5, 12), 3.0 / 15);
  EXPECT_DOUBLE_EQ(least_bubble(2, 3, 1), 0.5);
  EXPECT_DOUBLE_EQ(least_bubble(4, 1, 10), 0.75);
  EXPECT_EQ(least_bubble(1, 1, 100), 0);
  EXPECT_EQ(least_bubble(4, 5, 0), 0);
}

// A step begins when the one before it has left stage 0, and its slot's last one all stages.
TEST(LeastBubble, IsWhatAPipelineOfEqualStepsLeavesIdle) {
  for (std::uint32_t stages = 1; stages <= 5; ++stages) {
    for (std::uint32_t slots = 1; slots <= 7; ++slots) {
      std::vector<std::uint32_t> ends;
      std::uint32_t begin = 0;
      for (std::uint32_t step = 0; step < 20; ++step) {
        if (step > 0) ++begin;
        if (step >= slots) begin = std::max(begin, ends[step - slots]);
        ends.push_back(begin + stages);
        EXPECT_NEAR(least_bubble(stages, slots, step + 1), 1 - (step + 1.0) / ends.back(), 1e-12)
            << stages << " stages, " << slots << " slots, " << step + 1 << " steps";
      }
    }
  }
}

LedgerTotals shares(double compute, double upstream, double downstream, double communication,
                    double starved, double drain) {
  return {{compute, upstream, downstream, communication, starved, drain}};
}

// Shares in percent.
void expect_advice(const PipelineLedger& run, IdleCause cause, double part,
                   const std::string& text) {
  const Advice advice = advise(run);
  EXPECT_EQ(to_string(advice.cause), to_string(cause));
  EXPECT_NEAR(advice.part, part, 1e-12) << advice.text;
  EXPECT_THAT(advice.text, HasSubstr(text));
  EXPECT_EQ(advice.text.find('\n'), std::string::npos);
}

TEST(Advice, NamesTheLargestCause) {
  expect_advice({{shares(97, 0, 1, 1, 1, 0), shares(96, 3, 0, 1, 0, 0)}, 3, 1000}, IdleCause::none,
                0, "none: the stages compute 96.5 % of the time;");
  expect_advice({{shares(99, 0, 0, 0, 1, 0), shares(85, 14, 0, 1, 0, 0)}, 3, 1000},
                IdleCause::uneven_stages, 0.07,
                "stage 0 computes 99.0 % of the time, the stages 92.0 % on average: cut them by");
  // Devices that are only described cannot be measured.
  expect_advice({{shares(99, 0, 0, 0, 1, 0), shares(85, 14, 0, 1, 0, 0)}, 3, 1000, true},
                IdleCause::uneven_stages, 0.07, "stages are whole layers; penstock plan");
  expect_advice({{shares(74, 0, 2, 1, 1, 22), shares(75, 2, 0, 1, 0, 22)}, 3, 1000},
                IdleCause::drain, 0.22,
                "the last answers take 22.0 %, while slots run empty: put more records into a job");
  expect_advice({{shares(70, 0, 0, 0, 30, 0)}, 1, 1000}, IdleCause::reading, 0.30,
                "stage 0 reads, tokenizes and plans for 30.0 % of the time: run more ranks");
  expect_advice({{shares(60, 0, 8, 2, 30, 0), shares(63, 20, 0, 2, 15, 0)}, 3, 1000},
                IdleCause::reading, 0.30,
                "of the time, and has no time for its layers then: give it fewer with --layers");
  expect_advice({{shares(88, 0, 1, 11, 0, 0), shares(87, 2, 0, 11, 0, 0)}, 3, 1000},
                IdleCause::communication, 0.11,
                "messages take 11.0 %: see that the ranks use the fabric");
  expect_advice({{shares(90, 0, 0, 10, 0, 0), shares(90, 0, 0, 10, 0, 0)}, 3, 1000},
                IdleCause::communication, 0.10,
                "messages take 10.0 %: see that the ranks use the fabric");
  expect_advice(
      {{shares(80, 0, 19, 1, 0, 0), shares(80, 19, 0, 1, 0, 0)}, 3, 1000}, IdleCause::each_other,
      0.19,
      "stages wait for each other for 19.0 %, though none computes much longer: too little is in "
      "flight; work on more records at a time, or try more --slots than 3");
  expect_advice({{shares(50, 0, 50, 0, 0, 0), shares(50, 50, 0, 0, 0, 0)}, 1, 1000},
                IdleCause::few_slots, 0.50, "1 slot cannot keep 2 stages busy: give --slots 3");
  expect_advice(
      {{shares(88, 0, 2, 0, 0, 10), shares(90, 4, 0, 0, 2, 4), shares(89, 8, 0, 0, 3, 0)}, 4, 20},
      IdleCause::short_run, 2.0 / 22,
      "filling and draining 3 stages takes 9.1 % of so short a run: put more records into a job");
}

TEST(Advice, OfARunWithoutTime) {
  EXPECT_EQ(advise({{LedgerTotals{}}, 1, 0}).cause, IdleCause::none);
}

TEST(Advice, BesideTheBubble) {
  const PipelineLedger run{{shares(60, 0, 0, 0, 0, 0), shares(57, 3, 0, 0, 0, 0)}, 3, 1000};
  EXPECT_EQ(format_advice(run),
            "bubble      filling and draining 2 stages leaves at least 0.1 % idle (1,000 steps of "
            "60 ms); waits are 2.5 %\n"
            "advice      none: the stages compute 97.5 % of the time; the limit is how fast they "
            "do, which penstock bench compares with the machine's\n");
  EXPECT_THAT(format_advice({run.stages, 3, 0}), ::testing::StartsWith("advice"));
}

}  // namespace
}  // namespace penstock::jobs
