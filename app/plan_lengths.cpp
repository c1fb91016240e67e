#include "app/plan_lengths.hpp"

#include <fmt/format.h>

#include <string>

#include "app/dataset_options.hpp"
#include "jobs/launch.hpp"
#include "jobs/plan_lengths.hpp"
#include "jobs/request_tools.hpp"

namespace penstock::app {
namespace {

constexpr std::uint64_t kMostRecords = UINT64_MAX / 2;

jobs::AlikeRecords alike_records(const po::variables_map& values) {
  const jobs::AlikeRecords records{count_option(values, "prompt"), count_option(values, "generate"),
                                   count_option(values, "max-tokens"),
                                   long_count_option(values, "records", kMostRecords)};
  if (records.prompt == 0 || records.answer == 0 || records.records == 0) {
    throw jobs::UsageError("give --input D, or --prompt N, --generate N and --records N");
  }
  return records;
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
  if (!dataset) {
    jobs::take_lengths(alike_records(values), input, source);
    return;
  }
  for (const char* const name : {"prompt", "records"}) {
    if (values.count(name) > 0) {
      throw jobs::UsageError(fmt::format("--{} is for a plan without --input", name));
    }
  }
  jobs::DatasetTokensOptions sampled = *dataset;
  sampled.most = long_count_option(values, "sample", kMostRecords);
  const jobs::RequestTools tools(checkpoint, values["CKPT"].as<std::string>(), input.config,
                                 max_tokens_option(values), input.context_limit);
  jobs::read_lengths(sampled, tools.builder(), count_option(values, "generate"), input, source);
}

}  // namespace penstock::app
