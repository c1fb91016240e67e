#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/plan_size.hpp"
#include "jobs/prediction.hpp"

// How many stages and replicas a job should have, and how long it will take: found by replaying it
// in each of some layouts. Pure, but for threads.
namespace penstock::jobs {

// What devices do less in one layout than in another one for.
enum class Loss {
  uneven_stages,  // they wait for the slowest stage
  waiting,        // for links, or for sequences, of which there are too few
  drain,          // the pipeline runs empty at the end of the dataset
  kv_memory,      // it holds so few sequences that steps read the weights for few rows
  small_steps,    // more slots share the sequences, so each step reads the weights for fewer rows
};
std::string_view to_string(Loss loss);

// One layout.
struct PlanRow {
  std::uint32_t replicas = 1;
  PipelineSize size;      // of each replica
  Prediction prediction;  // of one that has as many records as any
  // Of all replicas together, of the whole job.
  double prompt_tokens_per_second = 0;
  double answer_tokens_per_second = 0;
  // Of the sequences that the slots have room for, and that there are, what the KV holds.
  double kv_share = 0;

  std::uint32_t stages() const { return static_cast<std::uint32_t>(size.ranks.size()); }
  std::uint32_t devices() const { return replicas * stages(); }
  double device_hours() const { return prediction.seconds * devices() / 3600; }
  // Tokens of answers.
  double tokens_per_device_hour() const;
};

// Where more stages make devices less useful than more replicas would.
struct TurningPoint {
  std::uint32_t stages = 0;  // the most that make devices as useful as any, but for 2 %
  std::uint32_t beyond = 0;  // the next number that makes the slowest stage faster
  double less = 0;           // what each device does less then, as a part
  Loss why = Loss::uneven_stages;
};

struct Plan {
  // By stages, then replicas: so the first has the fewest devices.
  std::vector<PlanRow> rows;
  std::size_t best = 0;  // the shortest time; among those within 2 % of it the fewest devices
  std::optional<TurningPoint> turning;  // empty: it was not reached
  std::uint32_t devices = 0;            // that there are at most
  std::uint32_t most_stages = 0;        // that were looked at
  std::string too_few;  // why fewer stages than the first row's do not fit; empty: it is one
};

// Throws UsageError where nothing fits, and what replay() throws. `threads` replay at a time.
Plan make_plan(const PlanInput& input, int threads);

// Of the plan's rows, by devices: those that no row with as few devices is as fast as, the best
// one, and those of the turning point.
std::vector<std::size_t> rows_that_matter(const Plan& plan);

// The options by which a run has the row's layout: without them it would choose for itself, by
// other rules.
std::vector<std::string> layout_arguments(const PlanRow& row);

// What devices do less for in `worse` than in `better`: of the factors whose product is a device's
// speed, the one that differs most.
Loss main_loss(const PlanRow& better, const PlanRow& worse);

}  // namespace penstock::jobs
