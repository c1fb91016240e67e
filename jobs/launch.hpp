#pragma once

#include <chrono>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "comm/link.hpp"
#include "comm/world.hpp"

namespace penstock::jobs {

enum class LinkKind { automatic, local, mpi, nccl };
std::string_view to_string(LinkKind kind);

// Replicas are pipelines side by side, each of `stages` consecutive ranks (or threads): launchers
// place consecutive ranks on one node, so that most activations need not leave it.
struct Layout {
  LinkKind link = LinkKind::local;
  int stages = 1;
  int replicas = 1;
  int ranks() const { return stages * replicas; }
};
// What `kind`, `stages` and `replicas` (0: not said, it follows from the others) mean in this
// world: mpi (or nccl, where that is asked for) with one stage a rank, or local threads in a world
// of one. Throws UsageError when they do not fit the number of ranks, or when the launcher started
// every rank as a world of its own.
Layout choose_layout(const comm::World& world, LinkKind kind, int stages, int replicas);
// The same for a world of `world_size` ranks; `launched_size`: what the launcher says, 0 if
// nothing.
Layout choose_layout(int world_size, int launched_size, LinkKind kind, int stages, int replicas);

// "stage 2", or where there are several replicas "replica 1, stage 2".
std::string stage_name(const comm::Endpoint& endpoint);

// Wrong use of the program; what() is ready for the user.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Runs `body` with the endpoint of each stage of this process, whose links move host memory: on the
// calling thread for ranks, on a thread a stage for local (the first on the calling one). Returns,
// on every rank, what the body of replica 0's stage 0 returned, after all bodies have ended.
// Collective for ranks. An exception that ends one thread ends the waits of the others; the first
// cause is rethrown. `watchdog` becomes that of the endpoints. Who is still at work when the others
// have ended must beat (Control::beat), or be taken for dead.
int run_stages(const comm::World& world, const Layout& layout,
               const std::function<int(comm::Endpoint&)>& body,
               std::chrono::milliseconds watchdog = comm::kDefaultWatchdog);

// run_stages for LinkKind::local; needs no MPI.
int run_threads(int stages, int replicas, const std::function<int(comm::Endpoint&)>& body,
                std::chrono::milliseconds watchdog = comm::kDefaultWatchdog);

}  // namespace penstock::jobs
