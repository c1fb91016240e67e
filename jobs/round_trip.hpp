#pragma once

#include <cstdint>

#include "comm/link.hpp"
#include "jobs/stage_cut.hpp"
#include "model/stage.hpp"
#include "model/step_cost.hpp"

namespace penstock::jobs {

// How long a decode step of `sequences` takes on its way through the pipeline and back, where no
// stage computes: the plan (with short block tables) to the stages, the activations through all
// links, the ids to the driver, and what driver and stages do for it. `idle`: of make_idle_stage().
// The median of some trips; a fraction of a second, or on very slow links a few.
//
// The driver gets the seconds, other stages 0. Collective over the pipeline. Throws comm::CommError
// as a run does when a stage is silent or a link fails.
double measure_round_trip(comm::Endpoint& endpoint, model::Stage& idle, std::uint32_t sequences,
                          const model::StepCost& cost);

struct SlotChoice {
  std::uint32_t slots = 1;
  double trip_seconds = 0;  // measured; 0: it was not
};

// slots_for() the trip that is measured with `idle` stages and the step time of the slowest stage;
// the most that any replica needs, for all of them, and its trip. Collective over all replicas.
// Throws as measure_round_trip() does.
SlotChoice agree_on_slots(comm::Endpoint& endpoint, model::Stage& idle, const StageCut& cut,
                          std::uint32_t sequences);

}  // namespace penstock::jobs
