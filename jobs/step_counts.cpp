#include "jobs/step_counts.hpp"

namespace penstock::jobs {

StepCounts& operator+=(StepCounts& sum, const StepCounts& more) {
  sum.steps += more.steps;
  sum.prompt_tokens += more.prompt_tokens;
  sum.generated_tokens += more.generated_tokens;
  sum.evictions += more.evictions;
  return sum;
}

void to_json(nlohmann::json& json, const StepCounts& counts) {
  json = {{"steps", counts.steps},
          {"prompt_tokens", counts.prompt_tokens},
          {"generated_tokens", counts.generated_tokens},
          {"evictions", counts.evictions}};
}

void from_json(const nlohmann::json& json, StepCounts& counts) {
  json.at("steps").get_to(counts.steps);
  json.at("prompt_tokens").get_to(counts.prompt_tokens);
  json.at("generated_tokens").get_to(counts.generated_tokens);
  json.at("evictions").get_to(counts.evictions);
}

}  // namespace penstock::jobs
