#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "model/step_plan.hpp"

namespace penstock::model {

// A step plan as bytes, for the ranks of one run: same program, same byte order.
std::vector<std::byte> serialize(const StepPlan& plan);

// Throws ModelError when the bytes are not exactly one plan, or its parts contradict each other.
StepPlan deserialize(std::span<const std::byte> bytes);

}  // namespace penstock::model
