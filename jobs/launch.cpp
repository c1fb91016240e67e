#include "jobs/launch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
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
// Each has a journal with a number of four digits.
constexpr int kMostReplicas = 10'000;

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

// Members leave together, and the others wait while the first ends its part: the last thing they do
// is to tell each other that they have ended.
int run_body(comm::Endpoint& endpoint, const std::function<int(comm::Endpoint&)>& body) {
  const int mine = body(endpoint);
  return std::stoi(
      endpoint.all().all_gather(std::to_string(mine), "the end of the run", endpoint.watchdog)[0]);
}

// One stage a rank. `stages` or `replicas` may be 0.
Layout choose_for_ranks(int ranks, LinkKind kind, int stages, int replicas) {
  if (stages == 0 && replicas == 0) return {kind, ranks, 1};
  if (stages != 0 && replicas != 0) {
    if (std::int64_t{stages} * replicas == ranks) return {kind, stages, replicas};
    if (replicas == 1) {
      throw UsageError(fmt::format(
          "--stages {} needs as many ranks for one pipeline, but {} were started: give mpirun or "
          "srun that number (-n), or leave --stages out",
          stages, ranks));
    }
    throw UsageError(fmt::format(
        "--replicas {} of --stages {} need {} ranks, but {} were started: give mpirun or srun that "
        "number (-n), or leave one of the two options out",
        replicas, stages, std::int64_t{stages} * replicas, ranks));
  }
  const int given = stages != 0 ? stages : replicas;
  if (given <= ranks && ranks % given == 0) {
    return stages != 0 ? Layout{kind, stages, ranks / stages}
                       : Layout{kind, ranks / replicas, replicas};
  }
  throw UsageError(fmt::format(
      "--{} {} needs a multiple of {} ranks, but {} were started: give mpirun or srun such a "
      "number "
      "(-n), for example {}, or leave --{} out",
      stages != 0 ? "stages" : "replicas", given, given, ranks,
      std::int64_t{given} * std::max(ranks / given, 1), stages != 0 ? "stages" : "replicas"));
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

Layout choose_layout(const comm::World& world, LinkKind kind, int stages, int replicas) {
  return choose_layout(world.size(), comm::World::launched_size(), kind, stages, replicas);
}

Layout choose_layout(int world_size, int launched_size, LinkKind kind, int stages, int replicas) {
  if (launched_size > world_size && world_size == 1) {
    throw UsageError(fmt::format(
        "the launcher started {} processes, but each is a world of its own: the program's MPI and "
        "the launcher do not fit (with Slurm: srun --mpi=pmix; with mpirun: the one of the MPI "
        "that penstock was built with)",
        launched_size));
  }
  if (stages < 0) throw UsageError("--stages must be at least 1");
  if (replicas < 0 || replicas > kMostReplicas) {
    throw UsageError(fmt::format("--replicas {}: give 1 to {}", replicas, kMostReplicas));
  }
  if (kind == LinkKind::automatic) kind = world_size > 1 ? LinkKind::mpi : LinkKind::local;
  if (kind == LinkKind::local) {
    if (world_size > 1) {
      throw UsageError(
          fmt::format("--link local runs all stages in one process, but {} ranks "
                      "were started: start one, or use --link mpi",
                      world_size));
    }
    const std::int64_t threads = std::int64_t{std::max(stages, 1)} * std::max(replicas, 1);
    if (threads > kMostThreads) {
      throw UsageError(
          fmt::format("{} stages in one process (--stages, --replicas): at most {}; start ranks "
                      "with mpirun or srun",
                      threads, kMostThreads));
    }
    return {kind, std::max(stages, 1), std::max(replicas, 1)};
  }
  return choose_for_ranks(world_size, kind, stages, replicas);
}

std::string stage_name(const comm::Endpoint& endpoint) {
  const std::string stage = fmt::format("stage {}", endpoint.control->member());
  return endpoint.pipelines == 1 ? stage : fmt::format("replica {}, {}", endpoint.pipeline, stage);
}

int run_threads(int stages, int replicas, const std::function<int(comm::Endpoint&)>& body,
                std::chrono::milliseconds watchdog) {
  std::vector<comm::Endpoint> endpoints = comm::local_endpoints(stages, replicas);
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
  if (layout.link == LinkKind::local) {
    return run_threads(layout.stages, layout.replicas, body, watchdog);
  }
  comm::Endpoint endpoint = comm::mpi_endpoint(world, layout.replicas);
  endpoint.watchdog = watchdog;
  return run_body(endpoint, body);
}

}  // namespace penstock::jobs
