#include "jobs/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <utility>

#include "jobs/launch.hpp"
#include "model/device_model.hpp"

namespace penstock::jobs {
namespace {

constexpr std::uint32_t kMostStages = 64;
// Layouts that differ by less are as good as each other.
constexpr double kAsGood = 0.02;
// Of a large dataset so many generations of sequences are replayed: one in which the pipeline fills
// up, two that count for all records behind, and one in which it runs empty.
constexpr std::uint64_t kGenerations = 4;

struct Means {
  double prompt = 0;
  double answer = 0;
};

Means means(const std::vector<ReplayRecord>& lengths) {
  Means sum;
  for (const ReplayRecord& record : lengths) {
    sum.prompt += record.prompt_tokens;
    sum.answer += record.answer_tokens;
  }
  const auto records = static_cast<double>(lengths.size());
  return {sum.prompt / records, sum.answer / records};
}

// Records that run at once.
double capacity(const PipelineSize& size, const Means& mean) {
  const double slots = static_cast<double>(size.slots) * size.max_sequences;
  return std::max(
      1.0, std::min(slots, static_cast<double>(size.kv_tokens()) / (mean.prompt + mean.answer)));
}

// Has all stages note their ledgers when so many records are finished.
class MarkedWorkload : public ReplayWorkload {
 public:
  MarkedWorkload(const std::vector<ReplayRecord>& records, std::array<std::uint64_t, 2> marks)
      : ReplayWorkload([&records, next = std::size_t{0}]() mutable {
          return next < records.size() ? std::optional(records[next++]) : std::nullopt;
        }),
        due_at_(marks) {}

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
  std::uint64_t between() const { return finished_at_[1] - finished_at_[0]; }

 private:
  std::array<std::uint64_t, 2> due_at_;
  std::array<std::uint64_t, 2> finished_at_{};
  std::size_t marks_ = 0;
  std::uint64_t finished_ = 0;
};

ReplayPipeline pipeline_of(const PlanInput& input, const PipelineSize& size, int first_rank) {
  const auto parts =
      model::cost_by_device(input.config, input.dtype, input.kv_dtype, input.machine.device);
  const model::StepShape decode{64, 64, 64 * 512, 64 * 512};
  std::vector<ReplayStage> stages;
  std::optional<model::StepCost> slowest;
  for (std::size_t i = 0; i < size.ranks.size(); ++i) {
    const model::StepCost cost(parts, size.ranks[i].layers);
    const int rank = first_rank + static_cast<int>(i);
    stages.push_back({cost, input.machine.edge(rank, rank + 1)});
    if (!slowest || cost.seconds(decode) > slowest->seconds(decode)) slowest = cost;
  }
  return {std::move(stages),
          input.machine.control,
          activation_row_bytes(input),
          {size.slots, size.max_step_tokens, size.max_sequences, size.kv_blocks},
          *slowest};
}

// The rest of a row: time, and where it goes.
void replay_row(const PlanInput& input, const Means& mean, PlanRow& row) {
  const std::uint64_t share = (input.records + row.replicas - 1) / row.replicas;
  const auto at_once = static_cast<std::uint64_t>(capacity(row.size, mean));
  row.is_sample = share > kGenerations * at_once + 1;
  const std::uint64_t count = row.is_sample ? kGenerations * at_once + 1 : share;
  row.replayed_records = count;
  const std::vector<ReplayRecord> records =
      draw_records(input.lengths, count, row.is_sample ? at_once : count);
  constexpr std::uint64_t kNever = std::numeric_limits<std::uint64_t>::max();
  MarkedWorkload workload(records, row.is_sample
                                       ? std::array{at_once, (kGenerations - 1) * at_once + 1}
                                       : std::array{kNever, kNever});
  const PipelineTotals totals =
      replay(pipeline_of(input, row.size,
                         first_rank_of_farthest(input.machine, row.stages(), row.replicas)),
             workload);

  // The records that were not replayed take as long as those between the marks.
  const double more =
      row.is_sample ? static_cast<double>(share - count) / static_cast<double>(workload.between())
                    : 0.0;
  row.seconds = totals.seconds;
  double busy = 0;
  double busiest = 0;
  for (std::size_t i = 0; i < totals.stages.size(); ++i) {
    LedgerTotals ledger = totals.stages[i].totals;
    if (row.is_sample) {
      const auto& marks = totals.stages[i].marks;
      const LedgerTotals steady = marks[1] - marks[0];
      for (std::size_t s = 0; s < kShares; ++s) ledger.seconds[s] += more * steady.seconds[s];
      if (i == 0) row.seconds += more * steady.total();
    }
    const double compute = ledger[Share::compute];
    busy += compute;
    if (compute > busiest) {
      busiest = compute;
      row.drain = ledger.fraction(Share::drain);
      row.waiting = 1 - row.drain - ledger.fraction(Share::compute);
    }
  }
  const auto of_replica = static_cast<double>(share);
  const auto all = static_cast<double>(input.records);
  row.busy_seconds = busy / (of_replica * mean.answer);
  row.evenness = busy / (busiest * row.stages());
  row.prompt_tokens_per_second = all * mean.prompt / row.seconds;
  row.answer_tokens_per_second = all * mean.answer / row.seconds;
  row.rows_per_step = static_cast<double>(totals.prompt_tokens + totals.generated_tokens) /
                      static_cast<double>(std::max<std::uint64_t>(totals.steps, 1));
  row.kv_share =
      capacity(row.size, mean) / (static_cast<double>(row.size.slots) * row.size.max_sequences);
}

// The least, and from there on powers of two, those and a half, and the most.
std::set<std::uint32_t> stage_numbers(std::uint32_t least, std::uint32_t most) {
  std::set<std::uint32_t> numbers = {least, most};
  for (std::uint32_t n = 1; n <= most; n *= 2) {
    for (const std::uint32_t candidate : {n, n + n / 2}) {
      if (candidate > least && candidate <= most) numbers.insert(candidate);
    }
  }
  return numbers;
}

void replay_rows(const PlanInput& input, const Means& mean, std::vector<PlanRow>& rows,
                 int threads) {
  std::atomic<std::size_t> next = 0;
  std::exception_ptr failure;
  std::mutex failing;
  const auto work = [&] {
    try {
      for (std::size_t i = next++; i < rows.size(); i = next++) replay_row(input, mean, rows[i]);
    } catch (...) {
      const std::lock_guard lock(failing);
      failure = std::current_exception();
      next = rows.size();
    }
  };
  {
    std::vector<std::jthread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

std::size_t best_row(const std::vector<PlanRow>& rows) {
  double shortest = std::numeric_limits<double>::infinity();
  for (const PlanRow& row : rows) shortest = std::min(shortest, row.seconds);
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].seconds > shortest * (1 + kAsGood)) continue;
    if (!best || rows[i].devices() < rows[*best].devices() ||
        (rows[i].devices() == rows[*best].devices() && rows[i].seconds < rows[*best].seconds)) {
      best = i;
    }
  }
  return best.value_or(0);
}

// Of the rows with the fewest replicas, which tell of stages alone.
std::optional<TurningPoint> turning_point(const std::vector<PlanRow>& rows) {
  std::vector<const PlanRow*> line;
  for (const PlanRow& row : rows) {
    if (row.replicas == rows.front().replicas) line.push_back(&row);
  }
  const auto top = std::max_element(line.begin(), line.end(), [](const auto* a, const auto* b) {
    return a->tokens_per_device_hour() < b->tokens_per_device_hour();
  });
  if (top + 1 == line.end()) return std::nullopt;
  const PlanRow& better = **top;
  const PlanRow& worse = **(top + 1);
  return TurningPoint{better.stages(), worse.stages(),
                      1 - worse.tokens_per_device_hour() / better.tokens_per_device_hour(),
                      main_loss(better, worse)};
}

}  // namespace

std::string_view to_string(Loss loss) {
  switch (loss) {
    case Loss::uneven_stages:
      return "uneven stages";
    case Loss::waiting:
      return "waiting";
    case Loss::drain:
      return "drain";
    case Loss::kv_memory:
      return "KV memory";
    case Loss::small_steps:
      return "small steps";
  }
  return "";
}

double PlanRow::tokens_per_device_hour() const {
  return answer_tokens_per_second * 3600 / devices();
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

Loss main_loss(const PlanRow& better, const PlanRow& worse) {
  const bool less_kv = worse.kv_share < better.kv_share;
  const std::array<std::pair<double, Loss>, 4> losses = {{
      {std::log(better.evenness / worse.evenness), Loss::uneven_stages},
      {std::log((1 - better.waiting) / (1 - worse.waiting)), Loss::waiting},
      {std::log((1 - better.drain) / (1 - worse.drain)), Loss::drain},
      {std::log(worse.busy_seconds / better.busy_seconds),
       less_kv ? Loss::kv_memory : Loss::small_steps},
  }};
  return std::max_element(losses.begin(), losses.end(),
                          [](const auto& a, const auto& b) { return a.first < b.first; })
      ->second;
}

Plan make_plan(const PlanInput& input, int threads) {
  const auto layers = static_cast<std::uint32_t>(input.config.num_layers);
  std::uint32_t most_stages = std::min(layers, kMostStages);
  if (input.devices > 0) most_stages = std::min(most_stages, input.devices);
  Plan plan;
  std::uint32_t least = input.stages > 0 ? input.stages : 1;
  const std::uint32_t last = input.stages > 0 ? input.stages : most_stages;
  PipelineFit fit = fit_pipeline(input, least);
  while (!fit.size && least < last) {
    plan.too_few = fit.reason;
    fit = fit_pipeline(input, ++least);
  }
  const std::uint32_t fewest = least * std::max(input.replicas, 1u);
  if (!fit.size || (input.devices > 0 && fewest > input.devices)) {
    throw UsageError(fmt::format("no layout fits {} device{} of {}: {}",
                                 input.devices > 0 ? input.devices : last,
                                 input.devices == 1 ? "" : "s", input.machine.text,
                                 fit.size ? fmt::format("{} are needed", fewest) : fit.reason));
  }
  plan.devices = input.devices > 0 ? input.devices : 4 * fewest;

  const Means mean = means(input.lengths);
  const std::uint32_t most =
      input.stages > 0 ? input.stages
                       : std::min(most_stages, plan.devices / std::max(input.replicas, 1u));
  for (const std::uint32_t stages : stage_numbers(least, most)) {
    fit = fit_pipeline(input, stages);
    if (!fit.size) continue;
    const auto records = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(input.records, std::numeric_limits<std::uint32_t>::max()));
    const std::uint32_t side_by_side = std::min(plan.devices / stages, records);
    const std::set<std::uint32_t> numbers =
        input.replicas > 0 ? std::set{input.replicas} : std::set{1u, side_by_side};
    for (const std::uint32_t replicas : numbers) {
      PlanRow& row = plan.rows.emplace_back();
      row.replicas = replicas;
      row.size = *fit.size;
    }
  }
  replay_rows(input, mean, plan.rows, threads);
  plan.best = best_row(plan.rows);
  plan.turning = turning_point(plan.rows);
  return plan;
}

}  // namespace penstock::jobs
