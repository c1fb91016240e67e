#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "comm/world.hpp"
#include "jobs/generation_params.hpp"
#include "jobs/job_clock.hpp"
#include "jobs/job_input.hpp"
#include "jobs/progress.hpp"
#include "jobs/stage_setup.hpp"
#include "jobs/stop_signals.hpp"

namespace penstock::jobs {

struct RunOptions {
  PipelineChoice pipeline;
  InputOptions input;
  std::string output;
  GenerationOptions generation;
  bool fresh = false;
  // Wall time from `started` on; none: the Slurm job's, if there is one.
  std::optional<std::chrono::milliseconds> time_limit;
  std::chrono::milliseconds drain_margin{60'000};
  Clock::time_point started = Clock::now();
  ProgressMode progress = ProgressMode::automatic;
  bool quiet = false;    // no header, no summary, no progress
  bool verbose = false;  // also the bytes that each rank read of the checkpoint
  std::string version;   // "penstock 0.1.0"
};

// penstock run --task generate. Collective over the world. Messages for people go to standard
// error of stage 0. Returns the exit code, the same on all ranks: 0 all records answered, 2 some
// have error rows, 75 stopped early on purpose, to be started again. Throws what main() reports
// otherwise.
int run_generate(const comm::World& world, const RunOptions& options, StopSignals& signals);

}  // namespace penstock::jobs
