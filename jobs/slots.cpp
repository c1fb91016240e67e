#include "jobs/slots.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "jobs/round_trip.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

constexpr double kMostSlots = 1024;
// Tokens of a usual sequence half way.
constexpr std::uint64_t kUsualContext = 1024;

}  // namespace

std::uint32_t slots_for(std::size_t stages, double trip_seconds, double step_seconds) {
  if (stages < 2) return 1;
  const double more = step_seconds > 0 ? std::ceil(trip_seconds / step_seconds) : 1;
  return static_cast<std::uint32_t>(
      std::min(static_cast<double>(stages) + std::max(more, 1.0), kMostSlots));
}

model::StepShape step_of_slots(std::uint32_t sequences) {
  return {sequences, sequences, sequences * kUsualContext, sequences * kUsualContext};
}

SlotChoice agree_on_slots(comm::Endpoint& endpoint, model::Stage& idle, const StageCut& cut,
                          std::uint32_t sequences) {
  const double trip = measure_round_trip(endpoint, idle, sequences, cut.slowest());
  const std::size_t stages = cut.ranges.size();
  const std::vector<double> steps = cut.seconds(step_of_slots(sequences));
  const std::uint32_t mine =
      std::min(slots_for(stages, trip, *std::max_element(steps.begin(), steps.end())),
               static_cast<std::uint32_t>(2 * stages + 1));
  SlotChoice most;
  for (const std::string& text : endpoint.all().all_gather(
           json{mine, trip}.dump(), "the number of slots", endpoint.watchdog)) {
    const json theirs = json::parse(text);
    most.slots = std::max(most.slots, theirs.at(0).get<std::uint32_t>());
    most.trip_seconds = std::max(most.trip_seconds, theirs.at(1).get<double>());
  }
  return most;
}

}  // namespace penstock::jobs
