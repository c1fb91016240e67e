#include "jobs/plan_report.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

#include "jobs/report.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

constexpr std::string_view kMethod =
    "replayed by the run's own scheduler; without loading the weights";

std::string labelled(std::string_view label, std::string_view text) {
  return fmt::format("{:<11}{}\n", label, text);
}

std::string_view plural(std::uint64_t count) { return count == 1 ? "" : "s"; }

std::string whole(double number) {
  return format_grouped(static_cast<std::uint64_t>(std::llround(std::max(number, 0.0))));
}

// Of short jobs, too.
std::string format_device_hours(double hours) {
  if (hours < 0.001) return "<0.001";
  return hours < 1 ? fmt::format("{:.3f}", hours) : fmt::format("{:.1f}", hours);
}

std::string counted(double number, std::string_view noun) {
  const auto count = static_cast<std::uint64_t>(std::llround(std::max(number, 0.0)));
  return fmt::format("{} {}{}", format_grouped(count), noun, plural(count));
}

std::string format_layout(const PlanInput& input, const PlanRow& row) {
  const auto per_node = static_cast<std::uint32_t>(input.machine.devices_per_node);
  const std::uint32_t nodes = (row.devices() + per_node - 1) / per_node;
  return fmt::format("{} replica{} of {} stage{}: {} device{} on {} node{}, {}, {} device-hours",
                     row.replicas, plural(row.replicas), row.stages(), plural(row.stages()),
                     row.devices(), plural(row.devices()), nodes, plural(nodes),
                     format_duration(row.prediction.seconds),
                     format_device_hours(row.device_hours()));
}

// What most of the lost time is lost to: KV memory, for which only the sequences are known, and the
// largest of the others.
std::string main_cost(const PlanRow& row) {
  constexpr double kFewSequences = 0.5;
  std::vector<std::string> costs;
  if (row.kv_share < kFewSequences) {
    costs.push_back(fmt::format("{}: {} at once", to_string(Loss::kv_memory),
                                counted(row.prediction.sequences, "sequence")));
  }
  const std::pair<double, Loss> others[] = {{1 - row.prediction.evenness, Loss::uneven_stages},
                                            {row.prediction.waiting, Loss::waiting},
                                            {row.prediction.drain, Loss::drain}};
  const auto& [share, loss] =
      *std::max_element(std::begin(others), std::end(others),
                        [](const auto& a, const auto& b) { return a.first < b.first; });
  if (share >= 0.005) costs.push_back(fmt::format("{} {:.0f} %", to_string(loss), 100 * share));
  return fmt::format("{}", fmt::join(costs, "; "));
}

std::string format_turning(const TurningPoint& turning) {
  std::string why;
  switch (turning.why) {
    case Loss::uneven_stages:
      why = "whole layers divide less evenly, and all wait for the slowest stage";
      break;
    case Loss::waiting:
      why = "stages wait for links and for sequences";
      break;
    case Loss::drain:
      why = "filling and draining the pipeline takes more of the time";
      break;
    case Loss::kv_memory:
      why = "the KV memory holds fewer of the sequences that the slots have room for";
      break;
    case Loss::small_steps:
      why = "each step has fewer rows for the time that it takes anyway";
      break;
  }
  return fmt::format("up to {}; with {} a device does {:.0f} % less: {}", turning.stages,
                     turning.beyond, 100 * turning.less, why);
}

std::string all_pay(const Plan& plan) {
  const std::uint32_t stages = plan.rows.back().stages();
  return fmt::format(
      "up to {}, {}", stages,
      stages == plan.most_stages
          ? "the most that were looked at"
          : fmt::format("since more, to {}, make the slowest one no faster", plan.most_stages));
}

std::string from_to(std::int64_t first, std::int64_t last) {
  return first == last ? std::to_string(first) : fmt::format("{}-{}", first, last);
}

// Stages that are alike have one line.
std::string format_memory(const PlanInput& input, const PlanRow& row) {
  std::string text = fmt::format("{:>7}  {:>8}  {:>9}  {:>9}  {:>9}  {:>9}\n", "stage", "layers",
                                 "weights", "KV", "steps", "free");
  const std::vector<RankMemory>& ranks = row.size.ranks;
  const std::uint64_t all = input.machine.device.memory_bytes;
  for (std::size_t first = 0; first < ranks.size();) {
    const RankMemory& rank = ranks[first];
    std::size_t last = first;
    while (last + 1 < ranks.size() && ranks[last + 1].total() == rank.total() &&
           ranks[last + 1].weight_bytes == rank.weight_bytes) {
      ++last;
    }
    text += fmt::format("{:>7}  {:>8}  {:>9}  {:>9}  {:>9}  {:>9}\n",
                        from_to(static_cast<std::int64_t>(first), static_cast<std::int64_t>(last)),
                        first == last ? from_to(rank.layers.begin, rank.layers.end - 1)
                                      : fmt::format("{} each", rank.layers.layers()),
                        format_bytes(rank.weight_bytes), format_bytes(rank.kv_bytes),
                        format_bytes(rank.activation_bytes),
                        format_bytes(all - std::min(all, rank.total())));
    first = last + 1;
  }
  return text;
}

std::string format_rows(const Plan& plan) {
  std::string text =
      fmt::format("  {:>8} {:>6} {:>7} {:>5} {:>10} {:>10} {:>10} {:>11} {:>8}  {}\n", "replicas",
                  "stages", "devices", "slots", "KV tokens", "prefill/s", "decode/s", "time",
                  "device-h", "most is lost to");
  for (const std::size_t i : rows_that_matter(plan)) {
    const PlanRow& row = plan.rows[i];
    std::string line = fmt::format(
        "{} {:>8} {:>6} {:>7} {:>5} {:>10} {:>10} {:>10} {:>11} {:>8}  {}",
        i == plan.best ? '*' : ' ', row.replicas, row.stages(), row.devices(), row.size.slots,
        format_count(row.size.kv_tokens()), whole(row.prompt_tokens_per_second),
        whole(row.answer_tokens_per_second), format_duration(row.prediction.seconds),
        format_device_hours(row.device_hours()), main_cost(row));
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string format_source(const PlanInput& input, const PlanSource& source) {
  std::string text;
  if (source.input.empty()) {
    text += labelled("records", fmt::format("{}, as given", format_grouped(input.records)));
  } else {
    text += labelled("input", source.input);
    std::string records = format_grouped(input.records) + " that can be answered";
    const std::uint64_t read = source.records_read;
    if (source.records_failed > 0) {
      records += fmt::format(", {} of those read cannot", format_grouped(source.records_failed));
    }
    text += labelled("records", records);
    text += labelled("", fmt::format("lengths are those of {} record{}, read and tokenized",
                                     format_grouped(read), plural(read)));
  }
  text += labelled("prompts", describe(source.prompts) + " tokens");
  text += labelled("answers", describe(source.answers) +
                                  (source.answers_are_longest
                                       ? " tokens, each as long as it may be (or --generate N)"
                                       : " tokens, as given"));
  return text;
}

json to_json(const PlanRow& row) {
  json ranks = json::array();
  for (const RankMemory& rank : row.size.ranks) {
    ranks.push_back({{"begin", rank.layers.begin},
                     {"end", rank.layers.end},
                     {"weight_bytes", rank.weight_bytes},
                     {"kv_bytes", rank.kv_bytes},
                     {"activation_bytes", rank.activation_bytes}});
  }
  return {{"replicas", row.replicas},
          {"stages", row.stages()},
          {"devices", row.devices()},
          {"slots", row.size.slots},
          {"max_step_tokens", row.size.max_step_tokens},
          {"kv_tokens", row.size.kv_tokens()},
          {"ranks", ranks},
          {"seconds", row.prediction.seconds},
          {"device_hours", row.device_hours()},
          {"prefill_tokens_per_s", row.prompt_tokens_per_second},
          {"decode_tokens_per_s", row.answer_tokens_per_second},
          {"rows_per_step", row.prediction.rows_per_step},
          {"busy_device_seconds_per_answer_token", row.prediction.busy_seconds},
          {"evenness", row.prediction.evenness},
          {"waiting", row.prediction.waiting},
          {"drain", row.prediction.drain},
          {"kv_share", row.kv_share},
          {"replayed_records_per_replica", row.prediction.replayed_records},
          {"is_sample", row.prediction.is_sample}};
}

}  // namespace

json to_json(const TokenHistogram& histogram) {
  json buckets = json::array();
  for (const TokenHistogram::Bucket& bucket : histogram.buckets) {
    buckets.push_back(
        {{"least", bucket.least}, {"most", bucket.most}, {"records", bucket.records}});
  }
  return {{"records", histogram.records},
          {"tokens", histogram.sum},
          {"mean", histogram.mean()},
          {"median", histogram.median},
          {"p90", histogram.percentile_90},
          {"longest", histogram.longest},
          {"buckets", buckets}};
}

std::string format_plan(const PlanInput& input, const Plan& plan, const PlanSource& source) {
  const PlanRow& best = plan.rows[plan.best];
  const PlanRow& smallest = plan.rows.front();
  std::string text = source.version + " plan\n";
  text += labelled("model", fmt::format("{}, {} parameters, {}, KV {}", source.model,
                                        format_count(source.parameters), io::to_string(input.dtype),
                                        io::to_string(input.kv_dtype)));
  text += labelled("machine", fmt::format("{}; {} at most", input.machine.text, plan.devices));
  text += format_source(input, source);
  text += labelled("times", kMethod);
  text += labelled("", source.measured.empty()
                           ? "of devices and links as the machine is described"
                           : fmt::format("steps as measured on {};", source.measured));
  if (!source.measured.empty()) {
    text += labelled("", "memory and links as the machine is described");
  }
  text += "\n" + labelled("smallest", format_layout(input, smallest));
  if (!plan.too_few.empty()) text += labelled("", plan.too_few);
  text += labelled("best", format_layout(input, best));
  text += labelled("stages pay", plan.turning ? format_turning(*plan.turning) : all_pay(plan));
  text += fmt::format("\nmemory of each rank, best layout, of {} a device:\n",
                      format_bytes(input.machine.device.memory_bytes));
  text += format_memory(input, best);
  text += "\nalternatives (* the best; tokens/s of the whole job):\n" + format_rows(plan);
  if (std::any_of(plan.rows.begin(), plan.rows.end(),
                  [](const PlanRow& row) { return row.prediction.is_sample; })) {
    text +=
        "Of large datasets a sample is replayed: filling the pipeline until what runs at once is "
        "as it\nstays, going on so, and the drain. The records behind it take as long as those in "
        "its middle.\n";
  }
  return text;
}

json to_json(const PlanInput& input, const Plan& plan, const PlanSource& source) {
  json rows = json::array();
  for (const PlanRow& row : plan.rows) rows.push_back(to_json(row));
  json turning;
  if (plan.turning) {
    turning = {{"stages", plan.turning->stages},
               {"beyond", plan.turning->beyond},
               {"less", plan.turning->less},
               {"why", to_string(plan.turning->why)}};
  }
  return {{"version", source.version},
          {"checkpoint", source.checkpoint},
          {"model", source.model},
          {"parameters", source.parameters},
          {"dtype", io::to_string(input.dtype)},
          {"kv_dtype", io::to_string(input.kv_dtype)},
          {"machine", input.machine.text},
          {"machine_figures", figures(input.machine)},
          {"measured", source.measured},
          {"devices", plan.devices},
          {"most_stages", plan.most_stages},
          {"input", source.input},
          {"records", input.records},
          {"records_read", source.records_read},
          {"records_failed", source.records_failed},
          {"prompts", to_json(source.prompts)},
          {"answers", to_json(source.answers)},
          {"answers_are_longest", source.answers_are_longest},
          {"too_few_stages", plan.too_few},
          {"best", plan.best},
          {"stages_pay", turning},
          {"rows", rows}};
}

}  // namespace penstock::jobs
