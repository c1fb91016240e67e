#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "comm/world.hpp"
#include "io/records.hpp"
#include "jobs/generation_params.hpp"
#include "jobs/progress.hpp"
#include "jobs/stage_setup.hpp"

namespace penstock::jobs {

struct RunOptions {
  PipelineChoice pipeline;
  std::string input;
  std::optional<io::InputFormat> format;  // none: the input's name or content tells
  std::string output;
  GenerationOptions generation;
  std::uint64_t limit = UINT64_MAX;  // records
  bool fresh = false;
  ProgressMode progress = ProgressMode::automatic;
  bool quiet = false;    // no header, no summary, no progress
  bool verbose = false;  // also the bytes that each rank read of the checkpoint
  std::string version;   // "penstock 0.1.0"
};

// penstock run --task generate. Collective over the world. Messages for people go to standard
// error of stage 0. Returns the exit code, the same on all ranks: 0 all records answered, 2 some
// have error rows. Throws what main() reports otherwise.
int run_generate(const comm::World& world, const RunOptions& options);

}  // namespace penstock::jobs
