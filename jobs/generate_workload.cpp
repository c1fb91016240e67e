#include "jobs/generate_workload.hpp"

#include <algorithm>
#include <utility>

#include "jobs/output_row.hpp"
#include "jobs/stop_strings.hpp"
#include "model/error.hpp"

namespace penstock::jobs {
namespace {

constexpr std::size_t kShownFailures = 5;

}  // namespace

struct GenerateWorkload::Active {
  Active(Request r, std::uint32_t prompt, const model::Tokenizer& tokenizer)
      : request(std::move(r)),
        prompt_tokens(prompt),
        decoder(tokenizer),
        text(request.params.stop) {}
  Request request;  // without its prompt, which the scheduler holds
  std::uint32_t prompt_tokens;
  model::StreamDecoder decoder;
  StopStrings text;
  std::uint32_t generated = 0;
};

GenerateWorkload::GenerateWorkload(
    Dataset& dataset, const model::Tokenizer& tokenizer, io::JournalWriter& journal,
    std::function<void(const GenerateCounts&, const std::vector<double>& busy)> on_step)
    : dataset_(dataset), tokenizer_(tokenizer), journal_(journal), on_step_(std::move(on_step)) {}

GenerateWorkload::~GenerateWorkload() = default;

std::optional<Work> GenerateWorkload::next() {
  while (auto item = dataset_.next()) {
    if (const auto* failed = std::get_if<FailedRecord>(&*item)) {
      fail(*failed);
      continue;
    }
    Request& request = std::get<Request>(*item);
    const auto prompt_tokens = static_cast<std::uint32_t>(request.prompt.size());
    Work work{request.index, std::move(request.prompt), request.params.sampling,
              request.params.max_tokens};
    counts_.tokens_in += prompt_tokens;
    active_.try_emplace(request.index, std::move(request), prompt_tokens, tokenizer_);
    return work;
  }
  return std::nullopt;
}

bool GenerateWorkload::accept(std::uint64_t record, std::int32_t token) {
  try {
    return take_token(record, token);
  } catch (const model::ModelError& error) {  // a tokenizer that cannot decode this answer
    reject(record, error.what());
    return true;
  }
}

bool GenerateWorkload::take_token(std::uint64_t record, std::int32_t token) {
  Active& active = active_.at(record);
  const GenerationParams& params = active.request.params;
  ++active.generated;
  ++counts_.tokens_out;
  if (std::binary_search(params.stop_token_ids.begin(), params.stop_token_ids.end(), token)) {
    finish(record, active, FinishReason::stop);
    return true;
  }
  if (active.text.push(active.decoder.push(token))) {
    finish(record, active, FinishReason::stop);
    return true;
  }
  if (active.generated >= params.max_tokens) {
    finish(record, active, FinishReason::length);
    return true;
  }
  return false;
}

void GenerateWorkload::finish(std::uint64_t record, Active& active, FinishReason reason) {
  // What the decoder held back may complete a stop string as well.
  if (!active.text.stopped() && active.text.push(active.decoder.finish())) {
    reason = FinishReason::stop;
  }
  const Request& request = active.request;
  journal_.append(record, to_row(Answer{record, request.id, active.text.take(), reason,
                                        active.prompt_tokens, active.generated}));
  ++counts_.answered;
  active_.erase(record);
}

void GenerateWorkload::reject(std::uint64_t record, const std::string& reason) {
  const Request& request = active_.at(record).request;
  fail({record, request.line, request.id, reason});
  active_.erase(record);
}

void GenerateWorkload::fail(const FailedRecord& failed) {
  journal_.append(failed.index, to_row(failed));
  ++counts_.failed;
  if (failures_.size() < kShownFailures) failures_.push_back(describe(failed));
}

void GenerateWorkload::step_done(const std::vector<double>& busy) { on_step_(counts_, busy); }

}  // namespace penstock::jobs
