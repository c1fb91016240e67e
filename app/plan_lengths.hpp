#pragma once

#include <optional>

#include "app/options.hpp"
#include "io/checkpoint.hpp"
#include "jobs/dataset_tokens.hpp"
#include "jobs/plan_report.hpp"
#include "jobs/plan_size.hpp"

namespace penstock::app {

// The options of plan that say which records there are and how long.
void add_length_options(po::options_description_easy_init& group);

// How many records there are and how long, from the dataset or, without one, from --prompt,
// --generate and --records, to `input` and `source`. Throws jobs::UsageError, and what reading the
// dataset throws.
void read_lengths(const po::variables_map& values, const io::CheckpointReader& checkpoint,
                  const std::optional<jobs::DatasetTokensOptions>& dataset, jobs::PlanInput& input,
                  jobs::PlanSource& source);

}  // namespace penstock::app
