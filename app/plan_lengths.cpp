#include "app/plan_lengths.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "app/dataset_options.hpp"
#include "jobs/launch.hpp"
#include "jobs/request_tools.hpp"

namespace penstock::app {
namespace {

constexpr std::uint64_t kMostRecords = UINT64_MAX / 2;

void take_given_lengths(const po::variables_map& values, jobs::PlanInput& input,
                        jobs::PlanSource& source) {
  const std::uint32_t prompt = count_option(values, "prompt");
  const std::uint32_t answer = count_option(values, "generate");
  input.records = long_count_option(values, "records", kMostRecords);
  if (prompt == 0 || answer == 0 || input.records == 0) {
    throw jobs::UsageError("give --input D, or --prompt N, --generate N and --records N");
  }
  if (std::uint64_t{prompt} + answer > input.context_limit) {
    throw jobs::UsageError(fmt::format("--prompt {} and --generate {} exceed the context of {}",
                                       prompt, answer, input.context_limit));
  }
  const std::uint32_t most = std::max(answer, count_option(values, "max-tokens"));
  input.lengths = {{prompt, answer, most}};
  source.prompts = jobs::token_histogram({prompt});
  source.answers = jobs::token_histogram({answer});
  source.answers_are_longest = false;
}

void read_dataset_lengths(const po::variables_map& values, const io::CheckpointReader& checkpoint,
                          const jobs::DatasetTokensOptions& dataset, jobs::PlanInput& input,
                          jobs::PlanSource& source) {
  for (const char* const name : {"prompt", "records"}) {
    if (values.count(name) > 0) {
      throw jobs::UsageError(fmt::format("--{} is for a plan without --input", name));
    }
  }
  jobs::DatasetTokensOptions sampled = dataset;
  sampled.most = long_count_option(values, "sample", kMostRecords);
  const jobs::RequestTools tools(checkpoint, values["CKPT"].as<std::string>(), input.config,
                                 max_tokens_option(values), input.context_limit);
  const jobs::DatasetTokens tokens = jobs::read_dataset_tokens(sampled, tools.builder());
  if (tokens.lengths.empty()) {
    throw jobs::UsageError(
        fmt::format("{}: none of the {} records read can be answered", dataset.path, tokens.read));
  }
  const std::uint32_t expected = count_option(values, "generate");
  std::vector<std::uint32_t> prompts;
  std::vector<std::uint32_t> answers;
  for (const jobs::RecordTokens& record : tokens.lengths) {
    const std::uint32_t answer =
        expected > 0 ? std::min(expected, record.max_tokens) : record.max_tokens;
    input.lengths.push_back({record.prompt, answer, record.max_tokens});
    prompts.push_back(record.prompt);
    answers.push_back(answer);
  }
  const double answerable =
      static_cast<double>(tokens.lengths.size()) / static_cast<double>(tokens.read);
  input.records =
      tokens.read == tokens.records
          ? tokens.lengths.size()
          : static_cast<std::uint64_t>(static_cast<double>(tokens.records) * answerable);
  source.input = dataset.path;
  source.records_read = tokens.read;
  source.records_failed = tokens.failed;
  source.prompts = jobs::token_histogram(std::move(prompts));
  source.answers = jobs::token_histogram(std::move(answers));
  source.answers_are_longest = expected == 0;
}

}  // namespace

void add_length_options(po::options_description_easy_init& group) {
  group("sample", po::value<std::string>()->default_value("20000")->value_name("N"),
        "read and tokenize so many records of D at most, spread evenly over it");
  group("prompt", po::value<std::string>()->value_name("N"),
        "instead of D: tokens of each prompt, with --generate and --records");
  group("records", po::value<std::string>()->value_name("N"), "how many records there are");
  group("generate", po::value<std::string>()->value_name("N"),
        "tokens that an answer is expected to have (default, with D: as many as it may have)");
}

void read_lengths(const po::variables_map& values, const io::CheckpointReader& checkpoint,
                  const std::optional<jobs::DatasetTokensOptions>& dataset, jobs::PlanInput& input,
                  jobs::PlanSource& source) {
  if (dataset) {
    read_dataset_lengths(values, checkpoint, *dataset, input, source);
  } else {
    take_given_lengths(values, input, source);
  }
}

}  // namespace penstock::app
