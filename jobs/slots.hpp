#pragma once

#include <cstddef>
#include <cstdint>

#include "model/step_cost.hpp"

// How many steps are under way at once. Pure.
namespace penstock::jobs {

// As many as keep all stages busy (DESIGN section 7): one for each stage, and as many more as steps
// fit into the trip, which is the time that a step spends between stages and its tokens on the way
// back; at least one more, and most_slots() at most. One stage: 1.
std::uint32_t slots_for(std::size_t stages, double trip_seconds, double step_seconds);

// Two for each stage and one: with more, over half of all sequences would be on their way, and each
// step would read the weights for fewer of them. What is measured on a busy machine, or guessed of
// one that was not calibrated, is bounded with it.
std::uint32_t most_slots(std::size_t stages);

// The step that trip and step time are of: `sequences` of one slot decode.
model::StepShape step_of_slots(std::uint32_t sequences);

}  // namespace penstock::jobs
