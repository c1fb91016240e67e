// A pipeline of ranks that ends badly: pipeline_end_program FAULT STAGE WATCHDOG_MS FOLDER. Started
// by pipeline_end_test.cpp. It reports as the program does, and each stage writes its flight
// recorder.

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "comm/world.hpp"
#include "jobs/launch.hpp"
#include "jobs/stage_setup.hpp"
#include "tests/jobs/faulty_stage.hpp"

namespace {

using namespace penstock;
using namespace penstock::jobs;

// A stage whose weights come from a slow file system.
int load_slowly(const comm::World& world, comm::Endpoint& endpoint, int slow_stage) {
  const Layout layout{LinkKind::mpi, world.size()};
  PipelineChoice choice;
  choice.checkpoint = PENSTOCK_SOURCE_DIR "/jobs/embedded/austen-1m.h5";
  choice.device = DeviceKind::cpu;
  choice.threads = 1;
  choice.kv_memory = 16 << 20;
  const StageDevice device = take_device(endpoint, choice.device, choice.link, layout);
  const auto start = comm::Clock::now();
  const bool slow = endpoint.control->member() == slow_stage;
  set_up_stage(endpoint, world, layout, device, choice, std::nullopt,
               [&](std::uint64_t, std::uint64_t) {
                 if (slow) std::this_thread::sleep_for(endpoint.watchdog / 8);
               });
  if (slow && comm::Clock::now() - start > 3 * endpoint.watchdog / 2) {
    fmt::print("loaded after more than the watchdog's time\n");
    std::fflush(stdout);
  }
  return 0;
}

int run_body(comm::Endpoint& endpoint, const std::string& fault, int faulty_stage,
             FlightRecorder& recorder) {
  const int member = endpoint.control->member();
  const int stages = endpoint.control->size();
  const bool faulty = member == faulty_stage;
  if (fault == "setup" && faulty) throw std::runtime_error("the fake setup broke");
  endpoint.control->all_gather("", "setup", endpoint.watchdog);

  const Fault kind = !faulty            ? Fault::none
                     : fault == "stuck" ? Fault::stuck
                     : fault == "still" ? Fault::still
                                        : Fault::none;
  FaultyStage stage(member, stages, kind, 50, std::chrono::hours(1));
  if (fault == "throw" && faulty) stage.throw_at = 50;
  const PipelineOptions options = options_of(static_cast<std::uint32_t>(stages) + 1, 32, 1000);
  stage.allocate_kv(options.kv_blocks);
  if (member > 0) {
    run_stage(endpoint, stage, options, &recorder);
    return 0;
  }
  FakeWorkload workload(300, 30);
  run_driver(endpoint, stage, options, any_cost(), workload, &recorder);
  fmt::print("{} answers\n", workload.answers.size());
  std::fflush(stdout);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const std::string fault = argv[1];
  const int faulty_stage = std::atoi(argv[2]);
  const std::chrono::milliseconds watchdog(std::atoi(argv[3]));
  const std::string folder = argv[4];
  comm::World world(&argc, &argv);
  FlightRecorder recorder(fmt::format("stage {}", world.rank()));
  try {
    return run_stages(
        world, {LinkKind::mpi, world.size()},
        [&](comm::Endpoint& endpoint) {
          return fault == "load" ? load_slowly(world, endpoint, faulty_stage)
                                 : run_body(endpoint, fault, faulty_stage, recorder);
        },
        watchdog);
  } catch (const std::exception& e) {
    recorder.write(fmt::format("{}/flight-{:04}.log", folder, world.rank()));
    fmt::print(stderr, "error: {} (rank {}, host {})\n", e.what(), world.rank(), world.host());
    std::fflush(stderr);
    world.abort(1);
  }
}
