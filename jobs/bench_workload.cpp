#include "jobs/bench_workload.hpp"

#include <stdexcept>
#include <utility>

namespace penstock::jobs {

BenchWorkload::BenchWorkload(std::uint32_t batch, std::uint32_t prompt_tokens,
                             std::uint32_t generated_tokens, std::int64_t vocab_size)
    : batch_(batch),
      prompt_tokens_(prompt_tokens),
      generated_tokens_(generated_tokens),
      vocab_size_(vocab_size) {}

std::optional<Work> BenchWorkload::next() {
  if (given_ == batch_) return std::nullopt;
  if (given_ == 0) begin_ = now_();
  Work work;
  work.record = given_++;
  work.max_tokens = generated_tokens_;
  work.prompt.resize(prompt_tokens_);
  for (std::uint32_t i = 0; i < prompt_tokens_; ++i) {
    // Spread over the vocabulary, different in each sequence.
    const auto mixed = (std::uint64_t{given_} * 7919 + i) * 2654435761u;
    work.prompt[i] = static_cast<std::int32_t>(mixed % static_cast<std::uint64_t>(vocab_size_));
  }
  return work;
}

bool BenchWorkload::accept(std::uint64_t record, std::int32_t) {
  const std::uint32_t count = ++generated_[record];
  if (count == 1 && ++decoding_ == batch_) {
    all_decode_ = now_();
    mark_ = true;
  } else if (decoding_ == batch_ && !first_done_) {
    ++steady_tokens_;
  }
  if (count < generated_tokens_) return false;
  if (decoding_ < batch_ && generated_tokens_ > 1) {
    throw std::runtime_error(
        "the first answers end before the last prompt is through, so the batch never decodes as a "
        "whole: give a longer --generate, or a larger --max-step-tokens");
  }
  if (!first_done_ && decoding_ == batch_) {
    first_done_ = now_();
    mark_ = true;
  }
  return true;
}

void BenchWorkload::reject(std::uint64_t, const std::string& reason) {
  throw std::runtime_error("the sequences do not fit: " + reason);
}

bool BenchWorkload::mark_due() { return std::exchange(mark_, false); }

double BenchWorkload::prefill_seconds() const {
  return std::chrono::duration<double>(all_decode_ - begin_).count();
}

double BenchWorkload::decode_tokens_per_second() const {
  const double seconds =
      first_done_ ? std::chrono::duration<double>(*first_done_ - all_decode_).count() : 0;
  return seconds > 0 ? static_cast<double>(steady_tokens_) / seconds : 0;
}

}  // namespace penstock::jobs
