#include "jobs/steady_workload.hpp"

#include <algorithm>
#include <stdexcept>

namespace penstock::jobs {
namespace {

// Spread over the vocabulary, different in each sequence.
std::int32_t token_of(std::uint64_t record, std::uint64_t position, std::int64_t vocab_size) {
  const std::uint64_t mixed = ((record + 1) * 7919 + position) * 2654435761U;
  return static_cast<std::int32_t>(mixed % static_cast<std::uint64_t>(vocab_size));
}

}  // namespace

SteadyWorkload::SteadyWorkload(std::uint64_t concurrent, std::uint32_t prompt_tokens,
                               std::uint32_t generated_tokens, std::int64_t vocab_size)
    : concurrent_(std::max<std::uint64_t>(concurrent, 1)),
      prompt_tokens_(prompt_tokens),
      generated_tokens_(std::max(generated_tokens, 1u)),
      vocab_size_(vocab_size) {}

std::optional<Work> SteadyWorkload::next() {
  if (last_mark_) return std::nullopt;
  Work work;
  work.record = given_++;
  work.max_tokens = generated_tokens_;
  for (std::uint32_t i = 0; i < prompt_tokens_; ++i) {
    work.prompt.push_back(token_of(work.record, i, vocab_size_));
  }
  // The first one, which is the oldest, has most.
  const std::uint64_t begun =
      work.record < concurrent_ ? (concurrent_ - 1 - work.record) * generated_tokens_ / concurrent_
                                : 0;
  for (std::uint64_t i = 0; i < begun; ++i) {
    work.generated.push_back(token_of(work.record, prompt_tokens_ + i, vocab_size_));
  }
  left_[work.record] = generated_tokens_ - static_cast<std::uint32_t>(begun);
  return work;
}

bool SteadyWorkload::accept(std::uint64_t record, std::int32_t) {
  if (first_mark_ && !last_mark_) ++steady_tokens_;
  const auto left = left_.find(record);
  if (--left->second > 0) return false;
  left_.erase(left);
  ++finished_;
  if (finished_ == concurrent_) {
    first_mark_ = now_();
    mark_ = true;
  } else if (finished_ == 2 * concurrent_) {
    last_mark_ = now_();
    mark_ = true;
  }
  return true;
}

void SteadyWorkload::reject(std::uint64_t, const std::string& reason) {
  throw std::runtime_error("the sequences do not fit: " + reason);
}

Pace SteadyWorkload::pace(const std::function<double()>&) {
  return last_mark_ && !mark_ ? Pace::stop : Pace::admit;
}

bool SteadyWorkload::mark_due() { return std::exchange(mark_, false); }

double SteadyWorkload::seconds() const {
  return last_mark_ ? std::chrono::duration<double>(*last_mark_ - *first_mark_).count() : 0;
}

SteadyResult steady_result(const SteadyWorkload& workload, std::uint64_t concurrent,
                           const PipelineTotals& totals) {
  SteadyResult result;
  result.concurrent = concurrent;
  result.seconds = workload.seconds();
  if (result.seconds > 0) {
    result.tokens_per_s = static_cast<double>(workload.tokens()) / result.seconds;
  }
  result.evictions = totals.evictions;
  for (const StageTimes& stage : totals.stages) {
    result.stages.push_back(stage.marks.size() == 2 ? stage.marks[1] - stage.marks[0]
                                                    : LedgerTotals{});
  }
  return result;
}

double SteadyResult::reached() const {
  double most = 0;
  for (const LedgerTotals& stage : stages) most = std::max(most, stage.fraction(Share::compute));
  return most;
}

double SteadyResult::efficiency() const {
  double sum = 0;
  for (const LedgerTotals& stage : stages) sum += stage.fraction(Share::compute);
  return stages.empty() ? 0 : sum / static_cast<double>(stages.size());
}

double SteadyResult::cut_allows() const { return reached() > 0 ? efficiency() / reached() : 0; }

}  // namespace penstock::jobs
