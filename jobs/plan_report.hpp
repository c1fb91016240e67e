#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "jobs/dataset_tokens.hpp"
#include "jobs/plan.hpp"

// A plan as people and programs read it. Pure.
namespace penstock::jobs {

// What a plan was made from.
struct PlanSource {
  std::string version;     // "penstock 0.1.0"
  std::string checkpoint;  // path
  std::string model;       // the checkpoint's source or file name
  std::uint64_t parameters = 0;
  std::string input;  // path; empty: lengths were given
  std::uint64_t records_read = 0;
  std::uint64_t records_failed = 0;  // of those read
  TokenHistogram prompts;            // of those read that can be answered
  TokenHistogram answers;            // as long as they are taken to be
  bool answers_are_longest = true;   // as long as they may be; else as the user says
  std::string measured;              // on what, and when; empty: times are as described
};

// Several lines, each with its newline.
std::string format_plan(const PlanInput& input, const Plan& plan, const PlanSource& source);
nlohmann::json to_json(const PlanInput& input, const Plan& plan, const PlanSource& source);
nlohmann::json to_json(const TokenHistogram& histogram);

}  // namespace penstock::jobs
