#include "app/dataset_options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "jobs/launch.hpp"

namespace penstock::app {

void add_dataset_options(po::options_description_easy_init& group) {
  group("input", po::value<std::string>()->value_name("D"), "the dataset, a file");
  group("input-format", po::value<std::string>()->default_value("auto"), "of D: jsonl, text, auto");
  group("limit", po::value<std::string>()->value_name("N"), "only the first N records");
  group("max-tokens", po::value<std::string>()->value_name("N"),
        "tokens of an answer at most, where a record says nothing (default 256)");
  group("max-context", po::value<std::string>()->value_name("N"),
        "tokens of a prompt and its answer together (default: the model's)");
}

std::optional<jobs::DatasetTokensOptions> dataset_options(const po::variables_map& values) {
  const auto input = given<std::string>(values, "input");
  if (!input) return std::nullopt;
  if (*input == "-") {
    throw jobs::UsageError("--input -: standard input can be read once only; give a file");
  }
  if (!std::filesystem::exists(*input)) {
    throw jobs::UsageError(*input + ": there is no such input file");
  }
  jobs::DatasetTokensOptions options;
  options.path = *input;
  options.format = parse_input_format(values["input-format"].as<std::string>());
  options.limit = parse_unsigned(values, "limit").value_or(UINT64_MAX);
  return options;
}

jobs::GenerationOptions max_tokens_option(const po::variables_map& values) {
  jobs::GenerationOptions options;
  if (const auto most = parse_unsigned(values, "max-tokens")) {
    options.max_tokens = static_cast<std::int64_t>(std::min<std::uint64_t>(*most, INT64_MAX));
  }
  return options;
}

std::uint32_t context_option(const po::variables_map& values, const model::ModelConfig& config) {
  const auto limit = static_cast<std::uint64_t>(config.max_position);
  const std::uint64_t asked = parse_unsigned(values, "max-context").value_or(limit);
  if (asked == 0) throw jobs::UsageError("--max-context 0 is out of range: give 1 or more");
  return static_cast<std::uint32_t>(std::min(asked, limit));
}

std::optional<io::InputFormat> parse_input_format(const std::string& text) {
  if (text == "jsonl") return io::InputFormat::jsonl;
  if (text == "text") return io::InputFormat::text;
  if (text == "auto") return std::nullopt;
  throw jobs::UsageError(fmt::format("--input-format '{}' is not known: jsonl, text, auto", text));
}

}  // namespace penstock::app
