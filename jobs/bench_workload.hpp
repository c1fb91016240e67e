#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <unordered_map>
#include <utility>

#include "jobs/pipeline.hpp"

namespace penstock::jobs {

// `batch` sequences of equal length, made of arbitrary tokens, that never stop early. Marks the
// ledger when all of them decode, and when the first is done.
class BenchWorkload : public Workload {
 public:
  BenchWorkload(std::uint32_t batch, std::uint32_t prompt_tokens, std::uint32_t generated_tokens,
                std::int64_t vocab_size);

  void begin(std::function<Ledger::Time()> now) override { now_ = std::move(now); }
  std::optional<Work> next() override;
  bool accept(std::uint64_t record, std::int32_t token) override;
  void reject(std::uint64_t record, const std::string& reason) override;  // throws
  bool mark_due() override;
  void step_done(const std::vector<double>&) override {
    if (decoding_ == batch_ && !first_done_) ++steady_steps_;
  }

  // Until the last sequence's first token.
  double prefill_seconds() const;
  // Steps between the two marks.
  std::uint64_t steady_steps() const { return steady_steps_; }
  std::uint64_t steady_tokens() const { return steady_tokens_; }
  // Tokens a second between the two marks.
  double decode_tokens_per_second() const;

 private:
  std::uint32_t batch_;
  std::uint32_t prompt_tokens_;
  std::uint32_t generated_tokens_;
  std::int64_t vocab_size_;
  std::uint32_t given_ = 0;
  std::uint32_t decoding_ = 0;  // sequences with at least one token
  std::unordered_map<std::uint64_t, std::uint32_t> generated_;
  std::uint64_t steady_tokens_ = 0;
  std::uint64_t steady_steps_ = 0;
  bool mark_ = false;
  std::function<Ledger::Time()> now_;
  Ledger::Time begin_{};
  Ledger::Time all_decode_{};
  std::optional<Ledger::Time> first_done_;
};

}  // namespace penstock::jobs
