#include "jobs/launch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "comm/error.hpp"
#include "comm/local.hpp"
#include "comm/mpi.hpp"

namespace penstock::jobs {
namespace {

// Threads of one process; more are surely a slip.
constexpr int kMostThreads = 256;

// One failure makes others: a thread that ends lets its peers' waits fail, and agree() throws on
// every member. The cause is the first that is not such an echo; if all could be echoes, the first.
bool is_echo(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const comm::AgreeError& e) {
    return !e.reported;
  } catch (const comm::CommError&) {
    return true;
  } catch (...) {
    return false;
  }
}

// Members leave together, and the others wait while stage 0 ends its part: the last thing they do
// is to tell each other that they have ended.
int run_body(comm::Endpoint& endpoint, const std::function<int(comm::Endpoint&)>& body) {
  const int mine = body(endpoint);
  return std::stoi(endpoint.control->all_gather(std::to_string(mine), "the end of the run",
                                                endpoint.watchdog)[0]);
}

}  // namespace

std::string_view to_string(LinkKind kind) {
  switch (kind) {
    case LinkKind::automatic:
      return "auto";
    case LinkKind::local:
      return "local";
    case LinkKind::mpi:
      return "mpi";
    case LinkKind::nccl:
      return "nccl";
  }
  return "auto";
}

Layout choose_layout(const comm::World& world, LinkKind kind, int stages) {
  return choose_layout(world.size(), comm::World::launched_size(), kind, stages);
}

Layout choose_layout(int world_size, int launched_size, LinkKind kind, int stages) {
  if (launched_size > world_size && world_size == 1) {
    throw UsageError(fmt::format(
        "the launcher started {} processes, but each is a world of its own: the program's MPI and "
        "the launcher do not fit (with Slurm: srun --mpi=pmix; with mpirun: the one of the MPI "
        "that penstock was built with)",
        launched_size));
  }
  if (stages < 0) throw UsageError("--stages must be at least 1");
  if (kind == LinkKind::automatic) kind = world_size > 1 ? LinkKind::mpi : LinkKind::local;
  if (kind == LinkKind::local) {
    if (world_size > 1) {
      throw UsageError(
          fmt::format("--link local runs all stages in one process, but {} ranks "
                      "were started: start one, or use --link mpi",
                      world_size));
    }
    if (stages > kMostThreads) {
      throw UsageError(fmt::format("--stages {} in one process: at most {}", stages, kMostThreads));
    }
    return {kind, stages == 0 ? 1 : stages};
  }
  if (stages != 0 && stages != world_size) {
    throw UsageError(fmt::format(
        "--stages {} needs as many ranks, but {} were started: give mpirun or srun that number "
        "(-n), or leave --stages out",
        stages, world_size));
  }
  return {kind, world_size};
}

int run_threads(int stages, const std::function<int(comm::Endpoint&)>& body,
                std::chrono::milliseconds watchdog) {
  std::vector<comm::Endpoint> endpoints = comm::local_endpoints(stages);
  std::mutex mutex;
  std::vector<std::exception_ptr> failures;  // in the order of time
  int result = 0;
  const auto run = [&](std::size_t stage) {
    // Lives longer than the catch: the peers' waits fail after the cause has been noted.
    comm::Endpoint endpoint = std::move(endpoints[stage]);
    endpoint.watchdog = watchdog;
    try {
      const int common = run_body(endpoint, body);
      if (stage == 0) result = common;
    } catch (...) {
      const std::lock_guard lock(mutex);
      failures.push_back(std::current_exception());
    }
  };
  {
    std::vector<std::jthread> threads;
    try {
      for (std::size_t stage = 1; stage < endpoints.size(); ++stage) {
        threads.emplace_back(run, stage);
      }
    } catch (...) {  // no more threads: those that run must not wait for the others
      endpoints.clear();
      throw;
    }
    run(0);
  }
  if (failures.empty()) return result;
  const auto cause = std::find_if_not(failures.begin(), failures.end(), is_echo);
  std::rethrow_exception(cause == failures.end() ? failures.front() : *cause);
}

int run_stages(const comm::World& world, const Layout& layout,
               const std::function<int(comm::Endpoint&)>& body,
               std::chrono::milliseconds watchdog) {
  if (layout.link == LinkKind::local) return run_threads(layout.stages, body, watchdog);
  comm::Endpoint endpoint = comm::mpi_endpoint(world);
  endpoint.watchdog = watchdog;
  return run_body(endpoint, body);
}

}  // namespace penstock::jobs
