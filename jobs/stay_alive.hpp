#pragma once

#include <cstdint>
#include <functional>

namespace penstock::jobs {

// Told now and then that so many more units of work are done.
using Alive = std::function<void(std::uint64_t done)>;

// Does `work`, which may wait for a file system or a lock, on another thread, while this one tells
// `alive` about twice a second. Work that moves may take for ever; when it has not told its own
// argument anything for ten minutes, `alive` hears of no more progress, so that a watchdog sees it.
// Throws what `work` throws.
void stay_alive(const Alive& alive, const std::function<void(const Alive& moved)>& work);

}  // namespace penstock::jobs
