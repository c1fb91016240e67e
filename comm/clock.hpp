#pragma once

#include <chrono>

namespace penstock::comm {

using Clock = std::chrono::steady_clock;

}  // namespace penstock::comm
