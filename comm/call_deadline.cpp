#include "comm/call_deadline.hpp"

#include <fmt/format.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace penstock::comm {

CallDeadline::CallDeadline(std::string call, std::chrono::seconds limit)
    : thread_([call = std::move(call), limit](const std::stop_token& over) {
        std::mutex mutex;
        std::condition_variable_any wake;
        std::unique_lock lock(mutex);
        for (std::chrono::seconds waited{0}; waited < limit; ++waited) {
          wake.wait_for(lock, over, std::chrono::seconds(1), [] { return false; });
          if (over.stop_requested()) return;
        }
        fmt::print(stderr,
                   "penstock: error: {} has not ended for {} s: another rank is gone or stopped\n",
                   call, limit.count());
        std::_Exit(EXIT_FAILURE);
      }) {}

}  // namespace penstock::comm
