#pragma once

#include "app/options.hpp"
#include "jobs/stage_setup.hpp"

namespace penstock::app {

// The options that run and bench share: layout, device, memory.
void add_pipeline_options(OptionParser& parser);
jobs::PipelineChoice pipeline_choice(const po::variables_map& values);

}  // namespace penstock::app
