#include "io/for_each_parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace penstock::io {

void for_each_parallel(std::uint64_t count, int threads,
                       const std::function<void(std::uint64_t)>& task) {
  std::atomic<std::uint64_t> next{0};
  std::mutex mutex;
  std::uint64_t failed = UINT64_MAX;
  std::exception_ptr error;
  const auto work = [&] {
    for (std::uint64_t i = next++; i < count; i = next++) {
      try {
        task(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        next = count;
        if (i < failed) {
          failed = i;
          error = std::current_exception();
        }
      }
    }
  };
  const std::uint64_t helpers = std::min<std::uint64_t>(
      static_cast<std::uint64_t>(std::max(threads, 1)) - 1, count == 0 ? 0 : count - 1);
  std::vector<std::jthread> pool;
  for (std::uint64_t i = 0; i < helpers; ++i) pool.emplace_back(work);
  work();
  pool.clear();  // joins
  if (error) std::rethrow_exception(error);
}

}  // namespace penstock::io
