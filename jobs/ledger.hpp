#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

namespace penstock::jobs {

// Where a stage's wall time goes.
enum class Share : std::size_t {
  compute,          // the layers and the sampler
  wait_upstream,    // no activations yet
  wait_downstream,  // the next stage has not taken the last ones; on the driver: no tokens yet
  communication,    // inside sends, receives, control messages
  starved,          // nothing is planned: too few records are in flight; on the driver: planning,
                    // reading, tokenizing
  drain,            // nothing is planned: the dataset is at its end
};
inline constexpr std::size_t kShares = 6;
std::string_view to_string(Share share);  // "compute", "wait_upstream", …

// Seconds by share.
struct LedgerTotals {
  std::array<double, kShares> seconds{};
  double& operator[](Share share) { return seconds[static_cast<std::size_t>(share)]; }
  double operator[](Share share) const { return seconds[static_cast<std::size_t>(share)]; }
  double total() const;
  double fraction(Share share) const;  // of total(); 0 when that is 0
  double waiting() const;              // fraction of all that is neither compute nor communication
};
LedgerTotals operator-(LedgerTotals a, const LedgerTotals& b);  // for recent shares
void to_json(nlohmann::json& json, const LedgerTotals& totals);
void from_json(const nlohmann::json& json, LedgerTotals& totals);

// Splits one stage's wall time: at each moment exactly one share runs, so the totals add up to the
// time since the start (kept in whole nanoseconds). Times are offsets from any fixed origin, given
// by the caller (steady or virtual clock); one that lies before the last one counts as the last.
class Ledger {
 public:
  using Time = std::chrono::nanoseconds;
  explicit Ledger(Time start, Share first = Share::starved);

  // Ends the running share at `now` and starts `share`. Returns the share that ran.
  Share switch_to(Share share, Time now);
  Share current() const { return current_; }
  // Including the running share's time up to `now`.
  LedgerTotals totals(Time now) const;

 private:
  std::array<Time, kShares> spent_{};
  Time since_;
  Share current_;
};

// Runs `share` for a scope, then what ran before.
template <typename Clock>
class LedgerScope {
 public:
  LedgerScope(Ledger& ledger, Share share, Clock clock)
      : ledger_(ledger), clock_(clock), before_(ledger.switch_to(share, clock())) {}
  ~LedgerScope() { ledger_.switch_to(before_, clock_()); }
  LedgerScope(const LedgerScope&) = delete;
  LedgerScope& operator=(const LedgerScope&) = delete;

 private:
  Ledger& ledger_;
  Clock clock_;
  Share before_;
};

}  // namespace penstock::jobs
