#pragma once

#include <cstdint>

#include "comm/link.hpp"
#include "model/stage.hpp"
#include "model/step_cost.hpp"

namespace penstock::jobs {

// How long a decode step of `sequences` takes on its way through the pipeline and back, where no
// stage computes: the plan to the stages, the activations through all links, the ids to the driver,
// and what driver and stages do for it. `idle`: of make_idle_stage(). The median of some trips; a
// fraction of a second, or on very slow links a few.
//
// The driver gets the seconds, other stages 0. Collective over the pipeline. Throws comm::CommError
// as a run does when a stage is silent or a link fails.
double measure_round_trip(comm::Endpoint& endpoint, model::Stage& idle, std::uint32_t sequences,
                          const model::StepCost& cost);

}  // namespace penstock::jobs
