#include "jobs/generate_workload.hpp"

#include <algorithm>
#include <utility>

#include "jobs/output_row.hpp"
#include "jobs/stop_strings.hpp"
#include "model/error.hpp"

namespace penstock::jobs {
namespace {

constexpr std::size_t kShownFailures = 5;
// An answer under way tells the dataset how long it is whenever it has grown by so much.
constexpr std::size_t kLearnTokens = 32;

}  // namespace

struct GenerateWorkload::Active {
  Active(Request r, std::uint32_t prompt, const model::Tokenizer& tokenizer)
      : request(std::move(r)),
        prompt_tokens(prompt),
        decoder(tokenizer),
        text(request.params.stop) {}
  void restart(const model::Tokenizer& tokenizer) {
    decoder = model::StreamDecoder(tokenizer);
    text = StopStrings(request.params.stop);
    generated.clear();
  }
  Request request;  // without its prompt, which the scheduler holds
  std::uint32_t prompt_tokens;
  model::StreamDecoder decoder;
  StopStrings text;
  std::vector<std::int32_t> generated;
  std::size_t journalled = 0;  // of them
  std::size_t learnt = 0;      // of them
};

GenerateWorkload::GenerateWorkload(Dataset& dataset, const model::Tokenizer& tokenizer,
                                   io::JournalWriter& journal, EarlierWork earlier,
                                   GenerateHooks hooks)
    : dataset_(dataset),
      tokenizer_(tokenizer),
      journal_(journal),
      earlier_(std::move(earlier)),
      hooks_(std::move(hooks)) {
  counts_.answered = earlier_.answered;
  counts_.failed = earlier_.failed;
  for (const auto& [record, tokens] : earlier_.partial) counts_.partial_tokens += tokens.size();
}

GenerateWorkload::~GenerateWorkload() = default;

std::optional<Work> GenerateWorkload::next() {
  std::optional<DatasetItem> item = dataset_.next();
  if (!item) return std::nullopt;
  if (const auto* failed = std::get_if<FailedRecord>(&*item)) {
    fail(*failed);
    return Work{};
  }
  Request& request = std::get<Request>(*item);
  const std::uint64_t record = request.index;
  const auto prompt_tokens = static_cast<std::uint32_t>(request.prompt.size());
  Work work{
      record, std::move(request.prompt), request.params.sampling, request.params.max_tokens, {}};
  tokens_in_ += prompt_tokens;
  Active& active =
      active_.try_emplace(record, std::move(request), prompt_tokens, tokenizer_).first->second;
  replay(record, active, work.generated);
  return work;
}

// Goes on where an earlier run stopped, if it stopped inside this record.
void GenerateWorkload::replay(std::uint64_t record, Active& active,
                              std::vector<std::int32_t>& generated) {
  const auto found = earlier_.partial.find(record);
  if (found == earlier_.partial.end()) return;
  std::vector<std::int32_t> tokens = std::move(found->second);
  earlier_.partial.erase(found);
  // A complete answer is journalled as such, never as a partial one.
  if (std::any_of(tokens.begin(), tokens.end(),
                  [&](std::int32_t token) { return extend(active, token).has_value(); })) {
    counts_.partial_tokens -= tokens.size();
    active.restart(tokenizer_);
    return;
  }
  active.journalled = tokens.size();
  generated = std::move(tokens);
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
  ++tokens_out_;
  const std::optional<FinishReason> reason = extend(active, token);
  const std::size_t news = active.generated.size() - active.learnt;
  if (reason || news >= kLearnTokens) {
    dataset_.learn(active.request, static_cast<std::uint32_t>(news), reason.has_value());
    active.learnt += news;
  }
  if (reason) finish(record, active, *reason);
  return reason.has_value();
}

std::optional<FinishReason> GenerateWorkload::extend(Active& active, std::int32_t token) {
  const GenerationParams& params = active.request.params;
  active.generated.push_back(token);
  if (std::binary_search(params.stop_token_ids.begin(), params.stop_token_ids.end(), token)) {
    return FinishReason::stop;
  }
  if (active.text.push(active.decoder.push(token))) return FinishReason::stop;
  if (active.generated.size() >= params.max_tokens) return FinishReason::length;
  return std::nullopt;
}

void GenerateWorkload::finish(std::uint64_t record, Active& active, FinishReason reason) {
  // What the decoder held back may complete a stop string as well.
  if (!active.text.stopped() && active.text.push(active.decoder.finish())) {
    reason = FinishReason::stop;
  }
  const Request& request = active.request;
  journal_.append(
      record, to_row(Answer{record, request.id, active.text.take(), reason, active.prompt_tokens,
                            static_cast<std::uint32_t>(active.generated.size())}));
  ++counts_.answered;
  forget(record);
}

void GenerateWorkload::reject(std::uint64_t record, const std::string& reason) {
  const Request& request = active_.at(record).request;
  fail({record, request.line, request.id, reason});
  forget(record);
}

void GenerateWorkload::fail(const FailedRecord& failed) {
  journal_.append(failed.index, to_row(failed));
  ++counts_.failed;
  if (failures_.size() < kShownFailures) failures_.push_back(describe(failed));
}

void GenerateWorkload::forget(std::uint64_t record) {
  const auto active = active_.find(record);
  counts_.partial_tokens -= active->second.journalled;
  active_.erase(active);
}

void GenerateWorkload::journal_partial() {
  for (auto& [record, active] : active_) {
    if (active.generated.size() == active.journalled) continue;
    journal_.append_partial(record, active.generated);
    counts_.partial_tokens += active.generated.size() - active.journalled;
    active.journalled = active.generated.size();
  }
}

Pace GenerateWorkload::pace(const std::function<double()>& needed_seconds) {
  return hooks_.pace ? hooks_.pace(needed_seconds) : Pace::admit;
}

void GenerateWorkload::stop_requested(StopRequest request) {
  if (hooks_.stop_requested) hooks_.stop_requested(request);
}

void GenerateWorkload::poll() {
  if (hooks_.poll) hooks_.poll();
}

void GenerateWorkload::step_done(const std::vector<double>& busy) {
  if (hooks_.step_done) hooks_.step_done(busy);
}

}  // namespace penstock::jobs
