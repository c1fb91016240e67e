#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "jobs/pipeline.hpp"

namespace penstock::jobs {

// Records of equal prompts and answers without end, as if there had been some before: the first
// `concurrent` of them, as many as run at once, have got part of their answers already, each a
// little more than the next. When so many are finished the first mark is due, when twice as many
// the second; then all stops.
class SteadyWorkload : public Workload {
 public:
  // At least one record, and one token of an answer.
  SteadyWorkload(std::uint64_t concurrent, std::uint32_t prompt_tokens,
                 std::uint32_t generated_tokens, std::int64_t vocab_size);

  void begin(std::function<Ledger::Time()> now) override { now_ = std::move(now); }
  std::optional<Work> next() override;
  bool accept(std::uint64_t record, std::int32_t token) override;
  void reject(std::uint64_t record, const std::string& reason) override;  // throws
  Pace pace(const std::function<double()>&) override;
  bool mark_due() override;
  void step_done(const std::vector<double>&) override {}

  // Between the marks.
  std::uint64_t tokens() const { return steady_tokens_; }  // of answers
  double seconds() const;

 private:
  std::uint64_t concurrent_;
  std::uint32_t prompt_tokens_;
  std::uint32_t generated_tokens_;
  std::int64_t vocab_size_;
  std::uint64_t given_ = 0;
  std::uint64_t finished_ = 0;
  std::unordered_map<std::uint64_t, std::uint32_t> left_;  // tokens that records still need
  std::uint64_t steady_tokens_ = 0;
  bool mark_ = false;
  std::function<Ledger::Time()> now_;
  std::optional<Ledger::Time> first_mark_;
  std::optional<Ledger::Time> last_mark_;
};

// What came of it.
struct SteadyResult {
  std::uint64_t concurrent = 0;
  double seconds = 0;       // between the marks
  double tokens_per_s = 0;  // of answers
  std::uint64_t evictions = 0;
  std::vector<LedgerTotals> stages;  // between the marks
  double best_cut = 1;               // best_cut_part() of the steps

  // Compute's share of the stage that has most of it: what was reached of the tokens/s at which
  // that stage would never wait.
  double reached() const;
  // The same of the best cut of whole layers.
  double reached_of_best() const { return reached() * best_cut; }
  // Of as many times the speed of one device that computes all of these steps alone as there are
  // stages: what was reached, and what the busiest stage allows, since layers are not divided.
  double efficiency() const;
  double cut_allows() const;
};
SteadyResult steady_result(const SteadyWorkload& workload, std::uint64_t concurrent,
                           const PipelineTotals& totals);

}  // namespace penstock::jobs
