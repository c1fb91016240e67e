#include "jobs/ledger_advice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>

#include "jobs/report.hpp"

namespace penstock::jobs {
namespace {

// Less than this is well.
constexpr double kWell = 0.05;

double mean(const PipelineLedger& run, const std::function<double(const LedgerTotals&)>& part) {
  double sum = 0;
  for (const LedgerTotals& stage : run.stages) sum += part(stage);
  return sum / static_cast<double>(run.stages.size());
}

double mean(const PipelineLedger& run, Share share) {
  return mean(run, [share](const LedgerTotals& stage) { return stage.fraction(share); });
}

double mean_waits(const PipelineLedger& run) {
  return mean(run, [](const LedgerTotals& stage) { return stage.waiting(); });
}

double computing(const LedgerTotals& stage) { return stage.fraction(Share::compute); }

// The stage that computes longest.
std::size_t slowest(const PipelineLedger& run) {
  const auto by_compute = [](const LedgerTotals& a, const LedgerTotals& b) {
    return a[Share::compute] < b[Share::compute];
  };
  return static_cast<std::size_t>(
      std::max_element(run.stages.begin(), run.stages.end(), by_compute) - run.stages.begin());
}

std::string percent(double part) { return fmt::format("{:.1f} %", 100 * part); }

std::string words(IdleCause cause, double part, const PipelineLedger& run) {
  const std::size_t stages = run.stages.size();
  switch (cause) {
    case IdleCause::none:
      return fmt::format(
          "none: the stages compute {} of the time; the limit is how fast they do, which penstock "
          "bench compares with the machine's",
          percent(mean(run, Share::compute)));
    case IdleCause::few_slots:
      return fmt::format("{} slot{} cannot keep {} stages busy: give --slots {}", run.slots,
                         run.slots == 1 ? "" : "s", stages, stages + 1);
    case IdleCause::short_run:
      return fmt::format(
          "filling and draining {} stages takes {} of so short a run: put more records into a job, "
          "or use fewer stages",
          stages, percent(part));
    case IdleCause::drain:
      return fmt::format(
          "the last answers take {}, while slots run empty: put more records into a job; a lower "
          "--max-tokens, or one for each record, helps if a few answers are very long",
          percent(part));
    case IdleCause::uneven_stages: {
      const std::size_t longest = slowest(run);
      return fmt::format(
          "stage {} computes {} of the time, the stages {} on average: {}", longest,
          percent(computing(run.stages[longest])), percent(mean(run, Share::compute)),
          run.is_rehearsal
              ? "stages are whole layers; penstock plan finds numbers of them that divide evenly"
              : "cut them by measurement (penstock bench --calibrate), or by hand with --layers");
    }
    case IdleCause::reading:
      return fmt::format(
          "stage 0 reads, tokenizes and plans for {} of the time{}", percent(part),
          stages == 1 ? ": run more ranks, which compute meanwhile"
                      : ", and has no time for its layers then: give it fewer with --layers");
    case IdleCause::communication:
      return fmt::format(
          "messages take {}: see that the ranks use the fabric, and have a core free of other "
          "work; "
          "fewer stages send less",
          percent(part));
    case IdleCause::each_other:
      return fmt::format(
          "stages wait for each other for {}, though none computes much longer: too little is in "
          "flight; work on more records at a time, or try more --slots than {}",
          percent(part), run.slots);
  }
  return "";
}

}  // namespace

double least_bubble(std::size_t stages, std::uint32_t slots, std::uint64_t steps) {
  if (steps == 0 || slots == 0) return 0;
  const auto p = static_cast<double>(stages);
  const auto m = static_cast<double>(steps);
  if (slots >= stages) return (p - 1) / (m + p - 1);
  const std::uint64_t passes = (steps + slots - 1) / slots;
  const auto last = static_cast<double>(steps - (passes - 1) * slots);
  const double whole = static_cast<double>(passes - 1) * p + last + p - 1;
  return 1 - m / whole;
}

std::string_view to_string(IdleCause cause) {
  constexpr std::array<std::string_view, 8> kNames = {"none",          "few_slots",     "short_run",
                                                      "drain",         "uneven_stages", "reading",
                                                      "communication", "each_other"};
  return kNames[static_cast<std::size_t>(cause)];
}

Advice advise(const PipelineLedger& run) {
  const double waits = mean_waits(run);
  const double communication = mean(run, Share::communication);
  if (waits + communication < kWell) return {IdleCause::none, 0, words(IdleCause::none, 0, run)};

  const double drain = mean(run, Share::drain);
  const double uneven = computing(run.stages[slowest(run)]) - mean(run, Share::compute);
  const double reading = run.stages[0].fraction(Share::starved);  // the others wait for it
  const double bubble = least_bubble(run.stages.size(), run.slots, run.steps);
  const double rest = waits - drain - uneven - reading;
  Advice most;
  const auto consider = [&](IdleCause cause, double part) {
    if (part > most.part) most = {cause, part, ""};
  };
  consider(IdleCause::drain, drain);
  consider(IdleCause::uneven_stages, uneven);
  consider(IdleCause::reading, reading);
  consider(IdleCause::communication, communication);
  consider(IdleCause::each_other, rest);
  // What must be is part of those shares: where it is half of all waiting, it is the cause.
  if (bubble >= waits / 2 && bubble > communication) {
    const bool is_few = run.slots < run.stages.size();
    most = {is_few ? IdleCause::few_slots : IdleCause::short_run, bubble, ""};
  }
  most.text = words(most.cause, most.part, run);
  return most;
}

std::string format_advice(const PipelineLedger& run) {
  std::string text;
  if (run.steps > 0) {
    const std::size_t stages = run.stages.size();
    const double step_seconds =
        run.stages[slowest(run)][Share::compute] / static_cast<double>(run.steps);
    text += fmt::format(
        "bubble      filling and draining {} stage{} leaves at least {} idle ({} steps of {:.3g} "
        "ms); waits are {}\n",
        stages, stages == 1 ? "" : "s", percent(least_bubble(stages, run.slots, run.steps)),
        format_grouped(run.steps), 1e3 * step_seconds, percent(mean_waits(run)));
  }
  return text + "advice      " + advise(run).text + "\n";
}

}  // namespace penstock::jobs
