#pragma once

#include <cstdint>

namespace penstock::model {

// Bytes of memory this process can still get: what the kernel calls available, or less where a
// control group (a batch system's, a container's) allows less.
std::uint64_t available_memory_bytes();

}  // namespace penstock::model
