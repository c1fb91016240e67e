#include "jobs/ledger.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

namespace penstock::jobs {
namespace {

using std::chrono::milliseconds;

TEST(Ledger, SplitsTheTime) {
  Ledger ledger(milliseconds(1000), Share::starved);
  EXPECT_EQ(ledger.switch_to(Share::compute, milliseconds(1250)), Share::starved);
  EXPECT_EQ(ledger.switch_to(Share::wait_upstream, milliseconds(2250)), Share::compute);
  EXPECT_EQ(ledger.current(), Share::wait_upstream);
  ledger.switch_to(Share::compute, milliseconds(2750));
  const LedgerTotals totals = ledger.totals(milliseconds(3000));
  EXPECT_DOUBLE_EQ(totals[Share::starved], 0.25);
  EXPECT_DOUBLE_EQ(totals[Share::compute], 1.25);
  EXPECT_DOUBLE_EQ(totals[Share::wait_upstream], 0.5);
  EXPECT_DOUBLE_EQ(totals[Share::drain], 0.0);
  EXPECT_DOUBLE_EQ(totals.total(), 2.0);
  EXPECT_DOUBLE_EQ(totals.fraction(Share::compute), 0.625);
  EXPECT_DOUBLE_EQ(LedgerTotals().fraction(Share::compute), 0.0);
  // Looking changes nothing.
  EXPECT_DOUBLE_EQ(ledger.totals(milliseconds(3000))[Share::compute], 1.25);
}

TEST(Ledger, ADayOfSmallSlicesAddsUp) {
  using std::chrono::nanoseconds;
  nanoseconds now{5};
  Ledger ledger(now);
  for (int i = 0; i < 600000; ++i) {
    now += nanoseconds(144'000'001 + i % 7);
    ledger.switch_to(static_cast<Share>(i % static_cast<int>(kShares)), now);
  }
  EXPECT_NEAR(ledger.totals(now).total(),
              std::chrono::duration<double>(now - nanoseconds(5)).count(), 1e-9 * 86400);
}

TEST(Ledger, TimeNeverRunsBackwards) {
  Ledger ledger(milliseconds(100));
  ledger.switch_to(Share::compute, milliseconds(50));
  ledger.switch_to(Share::drain, milliseconds(200));
  const LedgerTotals totals = ledger.totals(milliseconds(150));
  EXPECT_DOUBLE_EQ(totals[Share::starved], 0.0);
  EXPECT_DOUBLE_EQ(totals[Share::compute], 0.1);
  EXPECT_DOUBLE_EQ(totals[Share::drain], 0.0);
}

TEST(Ledger, ScopeGoesBack) {
  milliseconds now{0};
  Ledger ledger(now, Share::compute);
  const auto clock = [&] { return Ledger::Time(now); };
  {
    now = milliseconds(10);
    const LedgerScope scope(ledger, Share::communication, clock);
    EXPECT_EQ(ledger.current(), Share::communication);
    now = milliseconds(13);
  }
  EXPECT_EQ(ledger.current(), Share::compute);
  EXPECT_DOUBLE_EQ(ledger.totals(milliseconds(20))[Share::communication], 0.003);
  EXPECT_DOUBLE_EQ(ledger.totals(milliseconds(20))[Share::compute], 0.017);
}

TEST(Ledger, Arithmetic) {
  LedgerTotals a;
  a[Share::compute] = 2;
  LedgerTotals b;
  b[Share::compute] = 0.5;
  b[Share::drain] = 1;
  EXPECT_DOUBLE_EQ(b.total(), 1.5);
  EXPECT_DOUBLE_EQ((a - b)[Share::compute], 1.5);
  EXPECT_DOUBLE_EQ((a - b)[Share::drain], -1);
}

TEST(Ledger, Json) {
  LedgerTotals totals;
  totals[Share::wait_downstream] = 0.1;
  const nlohmann::json json = totals;
  EXPECT_EQ(json.dump(), R"({"communication":0.0,"compute":0.0,"drain":0.0,"starved":0.0,)"
                         R"("wait_downstream":0.1,"wait_upstream":0.0})");
  EXPECT_EQ(json.get<LedgerTotals>().seconds, totals.seconds);
  EXPECT_THROW(nlohmann::json::parse(R"({"compute":1})").get<LedgerTotals>(), std::exception);
}

}  // namespace
}  // namespace penstock::jobs
