#include "jobs/ledger.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

namespace penstock::jobs {
namespace {

constexpr std::array<std::string_view, kShares> kNames = {
    "compute", "wait_upstream", "wait_downstream", "communication", "starved", "drain"};

}  // namespace

std::string_view to_string(Share share) { return kNames[static_cast<std::size_t>(share)]; }

double LedgerTotals::total() const { return std::accumulate(seconds.begin(), seconds.end(), 0.0); }

double LedgerTotals::fraction(Share share) const {
  const double whole = total();
  return whole > 0 ? (*this)[share] / whole : 0.0;
}

double LedgerTotals::waiting() const {
  return fraction(Share::wait_upstream) + fraction(Share::wait_downstream) +
         fraction(Share::starved) + fraction(Share::drain);
}

LedgerTotals operator-(LedgerTotals a, const LedgerTotals& b) {
  for (std::size_t i = 0; i < kShares; ++i) a.seconds[i] -= b.seconds[i];
  return a;
}

void to_json(nlohmann::json& json, const LedgerTotals& totals) {
  json = nlohmann::json::object();
  for (std::size_t i = 0; i < kShares; ++i) json[std::string(kNames[i])] = totals.seconds[i];
}

void from_json(const nlohmann::json& json, LedgerTotals& totals) {
  for (std::size_t i = 0; i < kShares; ++i) {
    totals.seconds[i] = json.at(std::string(kNames[i])).get<double>();
  }
}

Ledger::Ledger(Time start, Share first) : since_(start), current_(first) {}

Share Ledger::switch_to(Share share, Time now) {
  now = std::max(now, since_);
  spent_[static_cast<std::size_t>(current_)] += now - since_;
  since_ = now;
  return std::exchange(current_, share);
}

LedgerTotals Ledger::totals(Time now) const {
  std::array<Time, kShares> spent = spent_;
  spent[static_cast<std::size_t>(current_)] += std::max(now, since_) - since_;
  LedgerTotals totals;
  for (std::size_t i = 0; i < kShares; ++i) {
    totals.seconds[i] = std::chrono::duration<double>(spent[i]).count();
  }
  return totals;
}

}  // namespace penstock::jobs
