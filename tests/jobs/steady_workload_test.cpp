#include "jobs/steady_workload.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

namespace penstock::jobs {
namespace {

using std::chrono::seconds;

TEST(SteadyWorkload, TheFirstHaveBegunBefore) {
  SteadyWorkload workload(4, 10, 8, 100);
  workload.begin(steady_now);
  for (const std::size_t begun : {6u, 4u, 2u, 0u, 0u, 0u}) {
    const std::optional<Work> work = workload.next();
    ASSERT_TRUE(work);
    EXPECT_EQ(work->prompt.size(), 10u);
    EXPECT_EQ(work->generated.size(), begun);
    EXPECT_EQ(work->max_tokens, 8u);
    for (const std::int32_t token : work->generated) {
      EXPECT_GE(token, 0);
      EXPECT_LT(token, 100);
    }
  }
}

// Two at once of two tokens each, a token a second; the first has one already.
TEST(SteadyWorkload, CountsBetweenTheMarksThenStops) {
  Ledger::Time now{};
  SteadyWorkload workload(2, 3, 2, 10);
  workload.begin([&] { return now; });
  for (int i = 0; i < 5; ++i) workload.next();
  const auto accept = [&](std::uint64_t record) {
    now += seconds(1);
    return workload.accept(record, 7);
  };
  const auto needed = [] { return 0.0; };
  EXPECT_TRUE(accept(0));
  EXPECT_FALSE(workload.mark_due());
  EXPECT_FALSE(accept(1));
  EXPECT_TRUE(accept(1));  // the second to be finished
  EXPECT_TRUE(workload.mark_due());
  EXPECT_FALSE(workload.mark_due());
  EXPECT_FALSE(accept(2));
  EXPECT_FALSE(accept(3));
  EXPECT_TRUE(accept(2));
  EXPECT_EQ(workload.pace(needed), Pace::admit);
  EXPECT_TRUE(accept(3));  // the fourth
  EXPECT_EQ(workload.pace(needed), Pace::admit) << "the mark is still to be told";
  EXPECT_TRUE(workload.mark_due());
  EXPECT_EQ(workload.pace(needed), Pace::stop);
  EXPECT_FALSE(workload.next());
  accept(4);
  EXPECT_EQ(workload.tokens(), 4u);
  EXPECT_DOUBLE_EQ(workload.seconds(), 4);
}

TEST(SteadyWorkload, RefusesWhatDoesNotFit) {
  SteadyWorkload workload(2, 3, 2, 10);
  EXPECT_THROW(workload.reject(0, "too long"), std::runtime_error);
}

TEST(SteadyResult, SharesByHand) {
  LedgerTotals busy, idle;
  busy[Share::compute] = 9;
  busy[Share::wait_upstream] = 1;
  idle[Share::compute] = 6;
  idle[Share::starved] = 4;
  SteadyResult result;
  result.stages = {busy, idle};
  EXPECT_DOUBLE_EQ(result.reached(), 0.9);
  result.best_cut = 0.8;
  EXPECT_DOUBLE_EQ(result.reached_of_best(), 0.72);
  EXPECT_DOUBLE_EQ(result.efficiency(), 0.75);
  EXPECT_DOUBLE_EQ(result.cut_allows(), 0.75 / 0.9);
  EXPECT_EQ(SteadyResult{}.reached(), 0);
  EXPECT_EQ(SteadyResult{}.cut_allows(), 0);
}

}  // namespace
}  // namespace penstock::jobs
