#include "jobs/prediction.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

namespace penstock::jobs {
namespace {

// Of a large dataset so many generations of sequences are replayed: one in which the pipeline fills
// up, two that count for all records behind, and one in which it runs empty.
constexpr std::uint64_t kGenerations = 4;

// Records that run at once.
double sequences_at_once(const SchedulerLimits& limits, const MeanLengths& mean) {
  const double slots = static_cast<double>(limits.slots) * limits.max_sequences;
  const double kv_tokens = static_cast<double>(limits.kv_blocks) * model::kKvBlockTokens;
  return std::max(1.0, std::min(slots, kv_tokens / (mean.prompt + mean.answer)));
}

// Has all stages note their ledgers when `at_once` records are finished, and when none but the last
// `at_once` are to come.
class MarkedWorkload : public ReplayWorkload {
 public:
  MarkedWorkload(const std::vector<ReplayRecord>& records, std::uint64_t at_once)
      : ReplayWorkload([&records, next = std::size_t{0}]() mutable {
          return next < records.size() ? std::optional(records[next++]) : std::nullopt;
        }),
        due_at_{at_once, records.size() - at_once} {}

  bool accept(std::uint64_t record, std::int32_t token) override {
    const bool done = ReplayWorkload::accept(record, token);
    if (done) ++finished_;
    return done;
  }
  bool mark_due() override {
    if (marks_ == due_at_.size() || finished_ < due_at_[marks_]) return false;
    finished_at_[marks_++] = finished_;
    return true;
  }

  // Records finished between the marks.
  std::uint64_t between() const {
    return marks_ == finished_at_.size() ? finished_at_[1] - finished_at_[0] : 0;
  }

 private:
  std::array<std::uint64_t, 2> due_at_;
  std::array<std::uint64_t, 2> finished_at_{};
  std::size_t marks_ = 0;
  std::uint64_t finished_ = 0;
};

// A replay, and what its middle part is to stand for.
struct Played {
  PipelineTotals totals;
  std::uint64_t records = 0;
  std::uint64_t in_middle = 0;  // of them; 0: there is no middle
};

Played play(const ReplayPipeline& pipeline, const std::vector<ReplayRecord>& lengths,
            std::uint64_t records, std::uint64_t at_once, std::uint64_t longest_first) {
  const std::vector<ReplayRecord> drawn = draw_records(lengths, records, longest_first);
  MarkedWorkload workload(drawn, std::min(at_once, records));
  Played played{replay(pipeline, workload), records, 0};
  played.in_middle = workload.between();
  return played;
}

// What `records` records take, of which some were played.
Prediction reckon(const Played& played, std::uint64_t records, double mean_answer) {
  Prediction result;
  result.replayed_records = played.records;
  result.is_sample = records > played.records;
  // Where a step ends as many answers as run at once, nothing may lie between the marks.
  const bool has_middle = played.in_middle > 0;
  const double more = static_cast<double>(records - played.records) /
                      static_cast<double>(has_middle ? played.in_middle : played.records);
  const PipelineTotals& totals = played.totals;
  result.seconds = totals.seconds;
  double busy = 0;
  double busiest = 0;
  for (std::size_t i = 0; i < totals.stages.size(); ++i) {
    LedgerTotals ledger = totals.stages[i].totals;
    const auto& marks = totals.stages[i].marks;
    const LedgerTotals middle = has_middle ? marks[1] - marks[0] : ledger;
    for (std::size_t s = 0; s < kShares; ++s) ledger.seconds[s] += more * middle.seconds[s];
    if (i == 0) result.seconds += more * middle.total();
    const double compute = ledger[Share::compute];
    busy += compute;
    if (compute > busiest) {
      busiest = compute;
      result.drain = ledger.fraction(Share::drain);
      result.waiting = 1 - result.drain - ledger.fraction(Share::compute);
    }
  }
  result.busy_seconds = busy / (static_cast<double>(records) * mean_answer);
  result.evenness = busy / (busiest * static_cast<double>(totals.stages.size()));
  result.rows_per_step = static_cast<double>(totals.prompt_tokens + totals.generated_tokens) /
                         static_cast<double>(std::max<std::uint64_t>(totals.steps, 1));
  return result;
}

}  // namespace

MeanLengths mean_lengths(const std::vector<ReplayRecord>& lengths) {
  MeanLengths sum;
  for (const ReplayRecord& record : lengths) {
    sum.prompt += record.prompt_tokens;
    sum.answer += record.answer_tokens;
  }
  const auto records = static_cast<double>(lengths.size());
  return {sum.prompt / records, sum.answer / records};
}

std::vector<ReplayRecord> draw_records(const std::vector<ReplayRecord>& lengths,
                                       std::uint64_t records, std::uint64_t last) {
  // A stride near the golden section of the number, without a common divisor, comes to each once,
  // and any part of the way is spread evenly.
  const std::uint64_t size = lengths.size();
  auto stride = static_cast<std::uint64_t>(0.6180339887498949 * static_cast<double>(size));
  stride = std::max<std::uint64_t>(stride, 1);
  while (std::gcd(stride, size) != 1) ++stride;
  std::vector<ReplayRecord> drawn;
  drawn.reserve(records);
  std::uint64_t position = 0;
  for (std::uint64_t i = 0; i < records; ++i) {
    drawn.push_back(lengths[position]);
    position = (position + stride) % size;
  }
  const auto tail = static_cast<std::ptrdiff_t>(std::min(last, records));
  std::stable_sort(drawn.end() - tail, drawn.end(),
                   [](const ReplayRecord& a, const ReplayRecord& b) {
                     if (a.max_tokens != b.max_tokens) return a.max_tokens > b.max_tokens;
                     return a.prompt_tokens > b.prompt_tokens;
                   });
  return drawn;
}

std::vector<Prediction> predict(const ReplayPipeline& pipeline,
                                const std::vector<ReplayRecord>& lengths,
                                const std::vector<std::uint64_t>& records) {
  const MeanLengths mean = mean_lengths(lengths);
  const double sequences = sequences_at_once(pipeline.limits, mean);
  const auto at_once = static_cast<std::uint64_t>(sequences);
  const std::uint64_t enough = kGenerations * at_once;
  std::optional<Played> sample;  // the same for all that are larger
  std::vector<Prediction> predictions;
  for (const std::uint64_t number : records) {
    if (number > enough && !sample) sample = play(pipeline, lengths, enough, at_once, at_once);
    predictions.push_back(
        reckon(number > enough ? *sample : play(pipeline, lengths, number, at_once, number), number,
               mean.answer));
    predictions.back().sequences = sequences;
  }
  return predictions;
}

}  // namespace penstock::jobs
