#pragma once

#include <string>

#include "app/options.hpp"
#include "jobs/plan.hpp"
#include "jobs/slurm_script.hpp"

namespace penstock::app {

// The options of plan that say what its Slurm job is to be.
void add_job_options(po::options_description_easy_init& group);

// What the command line says about the job, but for its layout. Throws jobs::UsageError.
jobs::SlurmJob slurm_job(const po::variables_map& values, const jobs::PlanInput& input);

// The script that runs `job` as `row` has it. Throws jobs::UsageError for one of years.
std::string script_of(jobs::SlurmJob job, const po::variables_map& values,
                      const jobs::PlanRow& row);

}  // namespace penstock::app
