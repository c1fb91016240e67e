#include "jobs/prediction.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "jobs/replay_sample.hpp"

namespace penstock::jobs {
namespace {

// Has all stages note their ledgers when so many tokens of answers have come; not if 0 are the end.
class MarkedWorkload : public ReplayWorkload {
 public:
  MarkedWorkload(const std::vector<ReplayRecord>& records, std::array<std::uint64_t, 2> due_at)
      : ReplayWorkload([&records, next = std::size_t{0}]() mutable {
          return next < records.size() ? std::optional(records[next++]) : std::nullopt;
        }),
        due_at_{due_at} {}

  bool accept(std::uint64_t record, std::int32_t token) override {
    ++tokens_;
    return ReplayWorkload::accept(record, token);
  }
  bool mark_due() override {
    if (due_at_[1] == 0 || marks_ == due_at_.size() || tokens_ < due_at_[marks_]) return false;
    marked_at_[marks_++] = tokens_;
    return true;
  }

  // Tokens that came between the marks.
  std::uint64_t between() const {
    return marks_ == marked_at_.size() ? marked_at_[1] - marked_at_[0] : 0;
  }

 private:
  std::array<std::uint64_t, 2> due_at_;
  std::array<std::uint64_t, 2> marked_at_{};
  std::size_t marks_ = 0;
  std::uint64_t tokens_ = 0;
};

// A replay, and what its middle part is to stand for.
struct Played {
  PipelineTotals totals;
  std::uint64_t records = 0;
  double tokens = 0;            // of all answers
  double tokens_in_middle = 0;  // 0: there is no middle
};

Played play(const ReplayPipeline& pipeline, const ReplaySample& sample) {
  MarkedWorkload workload(sample.records, {sample.middle_begin, sample.middle_end});
  Played played{replay(pipeline, workload), sample.records.size(), 0, 0};
  for (const ReplayRecord& record : sample.records) played.tokens += record.answer_tokens;
  played.tokens_in_middle = static_cast<double>(workload.between());
  return played;
}

// What records with so many tokens of answers take, of which some were played.
Prediction reckon(const Played& played, double tokens) {
  Prediction result;
  result.replayed_records = played.records;
  const PipelineTotals& totals = played.totals;
  result.is_sample = played.tokens_in_middle > 0;
  const double more = result.is_sample ? (tokens - played.tokens) / played.tokens_in_middle : 0;
  result.seconds = totals.seconds;
  double busy = 0;
  double busiest = 0;
  for (std::size_t i = 0; i < totals.stages.size(); ++i) {
    LedgerTotals ledger = totals.stages[i].totals;
    if (result.is_sample) {
      const auto& marks = totals.stages[i].marks;
      const LedgerTotals middle = marks[1] - marks[0];
      for (std::size_t s = 0; s < kShares; ++s) ledger.seconds[s] += more * middle.seconds[s];
      if (i == 0) result.seconds += more * middle.total();
    }
    const double compute = ledger[Share::compute];
    busy += compute;
    if (compute > busiest) {
      busiest = compute;
      result.drain = ledger.fraction(Share::drain);
      result.waiting = 1 - result.drain - ledger.fraction(Share::compute);
    }
  }
  result.busy_seconds = busy / tokens;
  result.evenness = busy / (busiest * static_cast<double>(totals.stages.size()));
  result.rows_per_step = static_cast<double>(totals.prompt_tokens + totals.generated_tokens) /
                         static_cast<double>(std::max<std::uint64_t>(totals.steps, 1));
  return result;
}

double work_of(const std::vector<ReplayRecord>& records) {
  double work = 0;
  for (const ReplayRecord& record : records) work += replay_work(record);
  return work;
}

}  // namespace

std::vector<Prediction> predict(const ReplayPipeline& pipeline, const KnownLengths& known,
                                const std::vector<std::uint64_t>& records, double affordable_work) {
  const std::vector<ReplayRecord>& lengths = known.lengths;
  const MeanLengths mean = mean_lengths(lengths);
  const double work = work_of(lengths) / static_cast<double>(lengths.size());
  const double at_once = sequences_at_once(pipeline.limits, lengths);
  const auto in_order = [&](std::uint64_t number) {
    return known.all_in_order ? lengths
                              : in_run_order(draw_records(lengths, number), pipeline.limits);
  };
  // Of the most records; all that are more than it has share it.
  const std::uint64_t most = *std::max_element(records.begin(), records.end());
  std::optional<Played> sample;
  if (static_cast<double>(most) * work > affordable_work) {
    // Windows are alike; where one is little to choose from, of several.
    std::uint64_t some = known.all_in_order ? most : window_records(most);
    std::optional<ReplaySample> part;
    while (!(part = sample_of(in_order(some), pipeline.limits, affordable_work)) && some < most) {
      some = some < most / 2 ? 2 * some : most;
    }
    if (part) sample = play(pipeline, *part);
  }
  std::vector<Prediction> predictions;
  for (const std::uint64_t number : records) {
    const double tokens = static_cast<double>(number) * mean.answer;
    const bool affordable = static_cast<double>(number) * work <= affordable_work;
    predictions.push_back(sample && !affordable && tokens > sample->tokens
                              ? reckon(*sample, tokens)
                              : reckon(play(pipeline, {in_order(number)}), tokens));
    predictions.back().sequences = std::min(at_once, static_cast<double>(number));
  }
  return predictions;
}

}  // namespace penstock::jobs
