#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/dataset_options.hpp"
#include "app/options.hpp"
#include "io/checkpoint.hpp"
#include "jobs/dataset_tokens.hpp"
#include "jobs/launch.hpp"
#include "jobs/plan_report.hpp"
#include "jobs/report.hpp"
#include "jobs/request_tools.hpp"

namespace penstock::app {
namespace {

jobs::TokenHistogram prompts_of(const jobs::DatasetTokens& tokens) {
  std::vector<std::uint32_t> prompts;
  for (const jobs::RecordTokens& record : tokens.lengths) prompts.push_back(record.prompt);
  return jobs::token_histogram(std::move(prompts));
}

std::string format_check(const jobs::DatasetTokens& tokens, const jobs::TokenHistogram& prompts) {
  std::string text =
      fmt::format("{} records, {}: {} can be answered, {} cannot\n",
                  jobs::format_grouped(tokens.records), io::to_string(tokens.format),
                  jobs::format_grouped(tokens.lengths.size()), jobs::format_grouped(tokens.failed));
  if (tokens.lengths.empty()) return text;
  text +=
      fmt::format("prompts: {} tokens; {}\n", jobs::format_grouped(prompts.sum), describe(prompts));
  for (const jobs::TokenHistogram::Bucket& bucket : prompts.buckets) {
    text += fmt::format("{:>12} to {:>9} tokens: {:>12}\n", jobs::format_grouped(bucket.least),
                        jobs::format_grouped(bucket.most), jobs::format_grouped(bucket.records));
  }
  return text;
}

}  // namespace

int check_command(Invocation& invocation) {
  OptionParser parser(
      "penstock check CKPT --input D [options]",
      "Reads every record of D as a run would, and computes nothing: how many there are, how long\n"
      "they are in tokens, and which of them cannot be answered, each with its line and the "
      "reason.\n"
      "Exit code 2 if there are such.\n",
      {"CKPT"});
  auto group = parser.group("Check");
  add_dataset_options(group);
  group("json", flag(), "machine-readable");
  po::variables_map values;
  if (!parser.parse(invocation.arguments, values)) return 0;
  const auto path = values["CKPT"].as<std::string>();
  const auto dataset = dataset_options(values);
  if (!dataset) throw jobs::UsageError("--input is missing: the file of records");

  const io::CheckpointReader checkpoint(path);
  const auto config = model::from_attributes(checkpoint.header().config);
  const jobs::RequestTools tools(checkpoint, path, config, max_tokens_option(values),
                                 context_option(values, config));
  const bool json = is_on(values, "json");
  nlohmann::json failures = nlohmann::json::array();
  const jobs::DatasetTokens tokens =
      jobs::read_dataset_tokens(*dataset, tools.builder(), [&](const jobs::FailedRecord& failed) {
        if (json) {
          failures.push_back(
              {{"index", failed.index}, {"line", failed.line}, {"message", failed.message}});
        } else {
          std::cout << jobs::describe(failed) << "\n";
        }
      });
  const jobs::TokenHistogram prompts = prompts_of(tokens);
  if (json) {
    std::cout << nlohmann::json{{"format", io::to_string(tokens.format)},
                                {"records", tokens.records},
                                {"failed", failures},
                                {"prompts", jobs::to_json(prompts)}}
                     .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
              << "\n";
  } else {
    std::cout << format_check(tokens, prompts);
  }
  return tokens.failed > 0 ? 2 : 0;
}

}  // namespace penstock::app
