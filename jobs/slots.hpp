#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/link.hpp"
#include "jobs/stage_cut.hpp"
#include "model/stage.hpp"
#include "model/step_cost.hpp"

// How many steps are under way at once.
namespace penstock::jobs {

// As many as keep all stages busy (DESIGN section 7): one for each stage, and as many more as steps
// fit into the trip, which is the time that a step spends between stages and its tokens on the way
// back; at least one more. One stage: 1.
std::uint32_t slots_for(std::size_t stages, double trip_seconds, double step_seconds);

// The step that trip and step time are of: `sequences` of one slot decode.
model::StepShape step_of_slots(std::uint32_t sequences);

struct SlotChoice {
  std::uint32_t slots = 1;
  double trip_seconds = 0;  // measured; 0: it was not
};

// By the trip that is measured with `idle` stages, and the step time of the slowest stage; the most
// that any replica needs, for all of them. Two for each stage and one at most: the trip is measured
// on machines that others may use as well, and where nothing was calibrated the step time is a
// rough guess; and more would only have more than half of all sequences on the way. Collective over
// all replicas. Throws as measure_round_trip() does.
SlotChoice agree_on_slots(comm::Endpoint& endpoint, model::Stage& idle, const StageCut& cut,
                          std::uint32_t sequences);

}  // namespace penstock::jobs
