#include "jobs/plan_lengths.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "jobs/launch.hpp"

namespace penstock::jobs {

void take_lengths(const AlikeRecords& records, PlanInput& input, PlanSource& source) {
  if (std::uint64_t{records.prompt} + records.answer > input.context_limit) {
    throw UsageError(fmt::format("--prompt {} and --generate {} exceed the context of {}",
                                 records.prompt, records.answer, input.context_limit));
  }
  input.records = records.records;
  input.lengths = {{records.prompt, records.answer, std::max(records.answer, records.max_tokens)}};
  source.prompts = token_histogram({records.prompt});
  source.answers = token_histogram({records.answer});
  source.answers_are_longest = false;
}

void read_lengths(const DatasetTokensOptions& dataset, const RequestBuilder& builder,
                  std::uint32_t expected, PlanInput& input, PlanSource& source) {
  const DatasetTokens tokens = read_dataset_tokens(dataset, builder);
  if (tokens.lengths.empty()) {
    throw UsageError(
        fmt::format("{}: none of the {} records read can be answered", dataset.path, tokens.read));
  }
  std::vector<std::uint32_t> prompts;
  std::vector<std::uint32_t> answers;
  for (const RecordTokens& record : tokens.lengths) {
    const std::uint32_t answer =
        expected > 0 ? std::min(expected, record.max_tokens) : record.max_tokens;
    input.lengths.push_back(
        {record.prompt, answer, record.max_tokens, record.line_bytes, record.prefix_hash});
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
  source.prompts = token_histogram(std::move(prompts));
  source.answers = token_histogram(std::move(answers));
  source.answers_are_longest = expected == 0;
}

}  // namespace penstock::jobs
