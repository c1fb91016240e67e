#include "jobs/plan.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <exception>
#include <limits>
#include <mutex>
#include <numeric>
#include <set>
#include <span>
#include <thread>
#include <utility>

#include "jobs/launch.hpp"
#include "jobs/replay_sample.hpp"

namespace penstock::jobs {
namespace {

constexpr std::uint32_t kMostStages = 64;
// Layouts that differ by less are as good as each other.
constexpr double kAsGood = 0.02;
// For all layouts together, in tokens of answers, if samples of them need no more: some seconds.
constexpr double kReplayWork = 1e7;
// More rows a step than so are worth a look, though no stage is faster.
constexpr double kMoreRows = 1.01;
// Estimates are as good as that: who is behind by more, in time and in use of devices, is not
// replayed.
constexpr double kFarBehind = 0.2;

// Of a step by which stages are compared.
constexpr std::uint64_t kSequences = 64;

SchedulerLimits limits_of(const PipelineSize& size) {
  return {size.slots, size.max_step_tokens, size.max_sequences, size.kv_blocks};
}

ReplayPipeline pipeline_of(const PlanInput& input, const PipelineSize& size, int first_rank) {
  const std::shared_ptr<const model::PartCost> parts = part_costs(input);
  const model::StepShape decode{64, 64, 64 * 512, 64 * 512};
  std::vector<ReplayStage> stages;
  std::optional<model::StepCost> slowest;
  for (std::size_t i = 0; i < size.ranks.size(); ++i) {
    const model::StepCost cost(parts, size.ranks[i].layers);
    const int rank = first_rank + static_cast<int>(i);
    stages.push_back({cost, input.machine.edge(rank, rank + 1)});
    if (!slowest || cost.seconds(decode) > slowest->seconds(decode)) slowest = cost;
  }
  return {std::move(stages), input.machine.control, activation_row_bytes(input), limits_of(size),
          *slowest};
}

// The rows of one number of stages: time, and where it goes.
void predict_rows(const PlanInput& input, std::span<PlanRow> rows, double affordable_work) {
  const PlanRow& most = rows.back();
  const int first_rank = first_rank_of_farthest(input.machine, most.stages(), most.replicas);
  std::vector<std::uint64_t> shares;
  for (const PlanRow& row : rows) {
    shares.push_back((input.records + row.replicas - 1) / row.replicas);
  }
  const std::vector<Prediction> predictions =
      predict(pipeline_of(input, most.size, first_rank), {input.lengths}, shares, affordable_work);
  const MeanLengths mean = mean_lengths(input.lengths);
  const auto records = static_cast<double>(input.records);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    PlanRow& row = rows[i];
    row.prediction = predictions[i];
    row.prompt_tokens_per_second = records * mean.prompt / row.prediction.seconds;
    row.answer_tokens_per_second = records * mean.answer / row.prediction.seconds;
    const double room = static_cast<double>(row.size.slots) * row.size.max_sequences;
    row.kv_share = row.prediction.sequences / std::min(room, static_cast<double>(shares[i]));
  }
}

// A number of stages that may be worth a replay. About how many rows it computes a second:
struct Candidate {
  PipelineSize size;
  double per_device = 0;  // in one pipeline
  double on_all = 0;      // in as many as there are devices for
};

// Those numbers of stages, from the least, that are better than all smaller ones in something: the
// slowest stage's time, or, where KV memory limits it, how many rows share a step.
std::vector<Candidate> candidates(const PlanInput& input, std::uint32_t least, std::uint32_t most,
                                  std::uint32_t devices) {
  const std::shared_ptr<const model::PartCost> parts = part_costs(input);
  const MeanLengths mean = mean_lengths(input.lengths);
  double shortest = std::numeric_limits<double>::infinity();
  double most_rows = 0;
  std::vector<Candidate> found;
  for (std::uint32_t stages = least; stages <= most; ++stages) {
    PipelineFit fit = fit_pipeline(input, stages);
    if (!fit.size) continue;
    const PipelineSize& size = *fit.size;
    const auto slowest = [&](double rows) {
      const auto sequences = static_cast<std::uint64_t>(std::max(rows, 1.0));
      const model::StepShape step = model::steady_step(sequences, mean.prompt, mean.answer);
      double seconds = 0;
      for (const RankMemory& rank : size.ranks) {
        seconds = std::max(seconds, model::StepCost(parts, rank.layers).seconds(step));
      }
      return seconds;
    };
    const double at_once = sequences_at_once(limits_of(size), input.lengths);
    const auto speed = [&](double replicas) {
      const double share = static_cast<double>(input.records) / replicas;
      const double rows = std::min(at_once, share) / size.slots;
      return replicas * rows / slowest(rows);
    };
    const double seconds = slowest(kSequences);
    if (seconds >= shortest && at_once / size.slots <= kMoreRows * most_rows) continue;
    shortest = std::min(shortest, seconds);
    most_rows = std::max(most_rows, at_once / size.slots);
    const double per_device = speed(1) / stages;
    const double on_all = speed(std::max(devices / stages, 1U));
    found.push_back({std::move(*fit.size), per_device, on_all});
  }
  return found;
}

// Of the candidates the least, those that may be the fastest on so many devices, those that may use
// devices best, and those after these, which show what more stages cost; all of them where that
// takes no time.
std::vector<PipelineSize> sizes_to_replay(const PlanInput& input, std::vector<Candidate> found) {
  double work = 0;
  for (const ReplayRecord& record : input.lengths) work += replay_work(record);
  work *= static_cast<double>(input.records) / static_cast<double>(input.lengths.size());
  const bool take_all = work * static_cast<double>(found.size()) <= kReplayWork;
  double fastest = 0;
  double best_use = 0;
  for (const Candidate& one : found) {
    fastest = std::max(fastest, one.on_all);
    best_use = std::max(best_use, one.per_device);
  }
  const auto uses_well = [&](const Candidate& one) {
    return one.per_device >= (1 - kFarBehind) * best_use;
  };
  std::vector<PipelineSize> sizes;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (take_all || i == 0 || found[i].on_all >= (1 - kFarBehind) * fastest ||
        uses_well(found[i]) || uses_well(found[i - 1])) {
      sizes.push_back(std::move(found[i].size));
    }
  }
  return sizes;
}

void predict_rows(const PlanInput& input, std::vector<PlanRow>& rows, int threads) {
  std::vector<std::span<PlanRow>> parts;
  for (auto begin = rows.begin(); begin != rows.end();) {
    const auto end = std::find_if(
        begin, rows.end(), [&](const PlanRow& row) { return row.stages() != begin->stages(); });
    parts.emplace_back(begin, end);
    begin = end;
  }
  const double affordable_work = kReplayWork / static_cast<double>(parts.size());
  // The longest ones, which are the last, first.
  std::atomic<std::size_t> next = 0;
  std::exception_ptr failure;
  std::mutex failing;
  const auto work = [&] {
    try {
      for (std::size_t i = next++; i < parts.size(); i = next++) {
        predict_rows(input, parts[parts.size() - 1 - i], affordable_work);
      }
    } catch (...) {
      const std::lock_guard lock(failing);
      failure = std::current_exception();
      next = parts.size();
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
  for (const PlanRow& row : rows) shortest = std::min(shortest, row.prediction.seconds);
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].prediction.seconds > shortest * (1 + kAsGood)) continue;
    if (!best || rows[i].devices() < rows[*best].devices() ||
        (rows[i].devices() == rows[*best].devices() &&
         rows[i].prediction.seconds < rows[*best].prediction.seconds)) {
      best = i;
    }
  }
  return best.value_or(0);
}

// Of the rows with the fewest replicas, which tell of stages alone: the most stages that use
// devices as well as any.
std::optional<TurningPoint> turning_point(const std::vector<PlanRow>& rows) {
  std::vector<const PlanRow*> line;
  for (const PlanRow& row : rows) {
    if (row.replicas == rows.front().replicas) line.push_back(&row);
  }
  double most = 0;
  for (const PlanRow* row : line) most = std::max(most, row->tokens_per_device_hour());
  const auto last = std::find_if(line.rbegin(), line.rend(), [&](const PlanRow* row) {
    return row->tokens_per_device_hour() >= (1 - kAsGood) * most;
  });
  if (last == line.rbegin() || last == line.rend()) return std::nullopt;
  const PlanRow& better = **last;
  const PlanRow& worse = **(last - 1);
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

Loss main_loss(const PlanRow& better_row, const PlanRow& worse_row) {
  const Prediction& better = better_row.prediction;
  const Prediction& worse = worse_row.prediction;
  const bool less_kv = worse_row.kv_share < better_row.kv_share;
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
    const std::uint32_t devices = input.devices > 0 ? input.devices : last;
    throw UsageError(fmt::format("no layout fits {} device{} of {}: {}", devices,
                                 devices == 1 ? "" : "s", input.machine.text,
                                 fit.size ? fmt::format("{} are needed", fewest) : fit.reason));
  }
  plan.devices = input.devices > 0 ? input.devices : 4 * fewest;

  const std::uint32_t most =
      input.stages > 0 ? input.stages
                       : std::min(most_stages, plan.devices / std::max(input.replicas, 1u));
  plan.most_stages = most;
  for (const PipelineSize& size :
       sizes_to_replay(input, candidates(input, least, most, plan.devices))) {
    const auto stages = static_cast<std::uint32_t>(size.ranks.size());
    const auto records = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(input.records, std::numeric_limits<std::uint32_t>::max()));
    const std::uint32_t side_by_side = std::min(plan.devices / stages, records);
    const std::set<std::uint32_t> numbers =
        input.replicas > 0 ? std::set{input.replicas} : std::set{1u, side_by_side};
    for (const std::uint32_t replicas : numbers) {
      PlanRow& row = plan.rows.emplace_back();
      row.replicas = replicas;
      row.size = size;
    }
  }
  predict_rows(input, plan.rows, threads);
  plan.best = best_row(plan.rows);
  plan.turning = turning_point(plan.rows);
  return plan;
}

std::vector<std::size_t> rows_that_matter(const Plan& plan) {
  std::vector<std::size_t> by_devices(plan.rows.size());
  std::iota(by_devices.begin(), by_devices.end(), std::size_t{0});
  const auto seconds = [&](std::size_t row) { return plan.rows[row].prediction.seconds; };
  std::sort(by_devices.begin(), by_devices.end(), [&](std::size_t a, std::size_t b) {
    const std::uint32_t of_a = plan.rows[a].devices();
    const std::uint32_t of_b = plan.rows[b].devices();
    return of_a != of_b ? of_a < of_b : seconds(a) < seconds(b);
  });
  const auto is_turning = [&](const PlanRow& row) {
    return plan.turning && row.replicas == plan.rows.front().replicas &&
           (row.stages() == plan.turning->stages || row.stages() == plan.turning->beyond);
  };
  std::vector<std::size_t> rows;
  double shortest = std::numeric_limits<double>::infinity();
  for (const std::size_t row : by_devices) {
    const bool is_faster = seconds(row) < shortest;
    shortest = std::min(shortest, seconds(row));
    if (is_faster || row == plan.best || is_turning(plan.rows[row])) rows.push_back(row);
  }
  return rows;
}

std::vector<std::string> layout_arguments(const PlanRow& row) {
  std::vector<std::string> arguments = {"--stages", std::to_string(row.stages())};
  if (row.replicas > 1) {
    arguments.insert(arguments.end(), {"--replicas", std::to_string(row.replicas)});
  }
  if (row.stages() > 1) {
    std::vector<std::int64_t> layers;
    for (const RankMemory& rank : row.size.ranks) layers.push_back(rank.layers.layers());
    arguments.insert(arguments.end(), {"--layers", fmt::format("{}", fmt::join(layers, ","))});
  }
  arguments.insert(arguments.end(),
                   {"--max-step-tokens", std::to_string(row.size.max_step_tokens)});
  return arguments;
}

}  // namespace penstock::jobs
