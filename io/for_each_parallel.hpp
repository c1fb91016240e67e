#pragma once

#include <cstdint>
#include <functional>

namespace penstock::io {

// Calls task(i) for 0 … count - 1 on up to `threads` threads, this one included, in rising order.
// The exception of the lowest i wins; what comes after a failure is skipped.
void for_each_parallel(std::uint64_t count, int threads,
                       const std::function<void(std::uint64_t)>& task);

}  // namespace penstock::io
