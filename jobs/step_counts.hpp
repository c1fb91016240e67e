#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>

namespace penstock::jobs {

// What a pipeline, or several, have computed.
struct StepCounts {
  std::uint64_t steps = 0;
  std::uint64_t prompt_tokens = 0;     // rows computed for prompts, evictions' repeats included
  std::uint64_t generated_tokens = 0;  // tokens sampled
  std::uint64_t evictions = 0;
};
StepCounts& operator+=(StepCounts& sum, const StepCounts& more);
void to_json(nlohmann::json& json, const StepCounts& counts);
// Throws nlohmann::json::exception.
void from_json(const nlohmann::json& json, StepCounts& counts);

}  // namespace penstock::jobs
