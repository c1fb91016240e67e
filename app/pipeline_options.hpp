#pragma once

#include <functional>

#include "app/commands.hpp"
#include "app/options.hpp"
#include "jobs/stage_setup.hpp"

namespace penstock::app {

// The options that run and bench share: layout, device, memory.
enum class Replicas { one, any };
void add_pipeline_options(OptionParser& parser, Replicas replicas);
jobs::PipelineChoice pipeline_choice(const po::variables_map& values);

// Starts MPI and has `read` take the options, on all ranks: if one of them cannot, say for a
// --config file that its host lacks, or if `choice`, which `read` sets, does not fit the ranks
// that were started, all throw comm::AgreeError. False: `read` was, it printed --help. Collective
// over the world.
bool read_on_all_ranks(Invocation& invocation, const jobs::PipelineChoice& choice,
                       const std::function<bool()>& read);

}  // namespace penstock::app
