#include "jobs/slots.hpp"

#include <algorithm>
#include <cmath>

namespace penstock::jobs {
namespace {

// Tokens of a usual sequence half way.
constexpr std::uint64_t kUsualContext = 1024;

}  // namespace

std::uint32_t slots_for(std::size_t stages, double trip_seconds, double step_seconds) {
  if (stages < 2) return 1;
  const double more = step_seconds > 0 ? std::ceil(trip_seconds / step_seconds) : 1;
  return static_cast<std::uint32_t>(std::min(static_cast<double>(stages) + std::max(more, 1.0),
                                             static_cast<double>(most_slots(stages))));
}

std::uint32_t most_slots(std::size_t stages) {
  return stages < 2 ? 1 : static_cast<std::uint32_t>(2 * stages + 1);
}

model::StepShape step_of_slots(std::uint32_t sequences) {
  return {sequences, sequences, sequences * kUsualContext, sequences * kUsualContext};
}

}  // namespace penstock::jobs
