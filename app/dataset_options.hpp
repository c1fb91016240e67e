#pragma once

#include <optional>

#include "app/options.hpp"
#include "jobs/dataset_tokens.hpp"
#include "jobs/generation_params.hpp"
#include "model/config.hpp"

namespace penstock::app {

// The options by which plan and check read a dataset as a run would.
void add_dataset_options(po::options_description_easy_init& group);
// Empty: there is no --input. Throws jobs::UsageError.
std::optional<jobs::DatasetTokensOptions> dataset_options(const po::variables_map& values);
// --max-tokens, which records may override.
jobs::GenerationOptions max_tokens_option(const po::variables_map& values);
// Tokens of a prompt and its answer together.
std::uint32_t context_option(const po::variables_map& values, const model::ModelConfig& config);

// "auto", "jsonl" or "text" of --input-format. Throws jobs::UsageError.
std::optional<io::InputFormat> parse_input_format(const std::string& text);

}  // namespace penstock::app
