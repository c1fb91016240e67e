#include "jobs/bench.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "jobs/bench_workload.hpp"
#include "jobs/gpu_limits.hpp"
#include "jobs/terminal.hpp"
#include "model/stage_plan.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

constexpr std::chrono::minutes kMeasureTimeout{5};

// What one pass of the whole model costs, for a token at a position.
struct ModelWork {
  double weight_bytes = 0;
  double flops = 0;       // of a token, the head included
  double body_flops = 0;  // of a token, without the head
  double attention_flops_per_position = 0;
  double kv_bytes_per_position = 0;
};

ModelWork whole_model(const StageSetup& setup) {
  const model::ModelConfig& c = setup.config;
  const auto all = model::cost_of(c, {0, c.num_layers, true, true}, setup.dtype);
  const auto body = model::cost_of(c, {0, c.num_layers, true, false}, setup.dtype);
  const auto layers = static_cast<double>(c.num_layers);
  ModelWork work;
  work.weight_bytes = static_cast<double>(all.weight_bytes);
  work.flops = all.flops_per_token;
  work.body_flops = body.flops_per_token;
  work.attention_flops_per_position = 4.0 * static_cast<double>(c.num_heads * c.head_dim) * layers;
  work.kv_bytes_per_position = 2.0 * static_cast<double>(c.num_kv_heads * c.head_dim) *
                               static_cast<double>(io::size_of(setup.kv_dtype)) * layers;
  return work;
}

// All sequences of a batch must be able to decode at the same time.
void check_size(const StageSetup& setup, const BenchOptions& options) {
  const std::uint64_t length = std::uint64_t{options.prompt_tokens} + options.generated_tokens;
  if (length > setup.context_limit) {
    throw UsageError(fmt::format("--prompt {} and --generate {} exceed the context of {}",
                                 options.prompt_tokens, options.generated_tokens,
                                 setup.context_limit));
  }
  const std::uint64_t blocks = (length + model::kKvBlockTokens - 1) / model::kKvBlockTokens;
  const std::uint64_t most =
      std::min<std::uint64_t>(std::uint64_t{setup.options.slots} * setup.options.max_sequences,
                              setup.options.kv_blocks / blocks);
  const std::uint32_t batch =
      options.steady ? 1 : *std::max_element(options.batches.begin(), options.batches.end());
  if (batch > most) {
    throw UsageError(
        fmt::format("--batch {} does not run at once: {} slots of {} sequences and a "
                    "KV cache of {} tokens hold {}",
                    batch, setup.options.slots, setup.options.max_sequences,
                    std::uint64_t{setup.options.kv_blocks} * model::kKvBlockTokens, most));
  }
}

PipelineTotals run_phase(comm::Endpoint& endpoint, StageSetup& setup, Workload& workload) {
  if (endpoint.control->member() == 0) {
    return run_driver(endpoint, *setup.stage, setup.options, setup.cost, workload);
  }
  run_stage(endpoint, *setup.stage, setup.options);
  return {};
}

// All stages load at the same time.
double load_bytes_per_s(const std::vector<StageReport>& stages) {
  double bytes = 0;
  double seconds = 0;
  for (const StageReport& stage : stages) {
    bytes += static_cast<double>(stage.bytes_loaded);
    seconds = std::max(seconds, stage.load_seconds);
  }
  return seconds > 0 ? bytes / seconds : 0;
}

// The ledger between the two marks of a decode phase.
std::vector<StageLedger> steady_ledger(const PipelineTotals& totals, const StageSetup& setup) {
  std::vector<StageLedger> ledger;
  for (std::size_t i = 0; i < totals.stages.size(); ++i) {
    const std::vector<LedgerTotals>& marks = totals.stages[i].marks;
    const LedgerTotals steady = marks.size() == 2 ? marks[1] - marks[0] : LedgerTotals{};
    ledger.push_back({static_cast<int>(i), setup.reports[i].rank, steady});
  }
  return ledger;
}

// What the stages are cut for. Of batches: steps of the largest while it decodes, since this is
// what the ledger is shown of.
PipelineChoice cut_for(const BenchOptions& options, const Layout& layout) {
  PipelineChoice choice = options.pipeline;
  if (options.steady) {
    choice.step = model::steady_step(PipelineOptions{}.max_sequences, options.prompt_tokens,
                                     options.generated_tokens);
    return choice;
  }
  // Before the trip is measured: one more than stages, as almost always.
  const auto usual = static_cast<std::uint32_t>(layout.stages == 1 ? 1 : layout.stages + 1);
  const std::uint32_t slots = choice.slots > 0 ? choice.slots : usual;
  const std::uint32_t batch = *std::max_element(options.batches.begin(), options.batches.end());
  choice.step = model::decode_step((batch + slots - 1) / slots,
                                   options.prompt_tokens + options.generated_tokens / 2.0);
  return choice;
}

StepTimes steady_step_times(const std::vector<StageLedger>& ledger, const BenchWorkload& decode,
                            const StageSetup& setup, const BenchOptions& options) {
  std::vector<LedgerTotals> totals;
  for (const StageLedger& stage : ledger) totals.push_back(stage.totals);
  // Each token of the steady time is a row of a sequence that is half way through its answer.
  const auto work = model::decode_step(decode.steady_tokens(),
                                       options.prompt_tokens + options.generated_tokens / 2.0);
  const std::uint64_t steps = decode.steady_steps();
  if (steps == 0) return {};
  const std::array<model::StepShape, 1> mean = {model::mean_of(work, steps)};  // all are alike
  return step_times(setup.cut, totals, mean, steps);
}

// What the virtual devices are said to do.
model::MachineLimits described_limits(const StageSetup& setup, const VirtualMachine& machine) {
  const auto devices = static_cast<double>(setup.reports.size());
  const model::DeviceModel& device = machine.device;
  const double flops =
      setup.dtype == io::DType::f32 ? device.f32_flops_per_second : device.bf16_flops_per_second;
  return {devices * flops, devices * device.memory_bytes_per_second};
}

// As many records as fit at once.
std::uint64_t steady_records(const StageSetup& setup, const BenchOptions& options) {
  const std::uint64_t length = std::uint64_t{options.prompt_tokens} + options.generated_tokens;
  const std::uint64_t blocks = (length + model::kKvBlockTokens - 1) / model::kKvBlockTokens;
  return std::min<std::uint64_t>(std::uint64_t{setup.options.slots} * setup.options.max_sequences,
                                 setup.options.kv_blocks / blocks);
}

SteadyResult run_steady(comm::Endpoint& endpoint, StageSetup& setup, const BenchOptions& options) {
  const std::uint64_t concurrent = steady_records(setup, options);
  SteadyWorkload workload(concurrent, options.prompt_tokens, options.generated_tokens,
                          setup.config.vocab_size);
  const PipelineTotals totals = run_phase(endpoint, setup, workload);
  SteadyResult result = steady_result(workload, concurrent, totals);
  if (totals.steps > 0) {
    result.best_cut = best_cut_part(setup.cut, model::mean_of(totals.work, totals.steps));
  }
  return result;
}

// All ranks measure at the same time, since ranks of one node share its memory, or a GPU.
model::MachineLimits measure_all(comm::Endpoint& endpoint, const StageSetup& setup) {
  const int member = endpoint.control->member();
  const int threads = setup.reports[static_cast<std::size_t>(member)].threads;
  model::MachineLimits mine;
  agree_on(endpoint, "measuring the machine", [&] {
    mine = setup.device.kind == DeviceKind::cuda
               ? measure_gpu(setup.device.gpu.index, setup.dtype)
               : model::measure_machine(model::Cpu{threads}, setup.dtype);
  });
  const json text = {{"flops", mine.flops_per_second}, {"bytes", mine.bytes_per_second}};
  model::MachineLimits sum;
  for (const std::string& theirs :
       endpoint.control->all_gather(text.dump(), "the machine's limits", kMeasureTimeout)) {
    const json j = json::parse(theirs);
    sum.flops_per_second += j.at("flops").get<double>();
    sum.bytes_per_second += j.at("bytes").get<double>();
  }
  return sum;
}

json to_json(const BenchRow& row) {
  json stages = json::array();
  for (const StageLedger& stage : row.decode_ledger) stages.push_back(stage.totals);
  return {{"batch", row.batch},
          {"prefill_tokens_per_s", row.prefill_tokens_per_s},
          {"prefill_limit", row.prefill_limit},
          {"decode_tokens_per_s", row.decode_tokens_per_s},
          {"decode_limit", row.decode_limit},
          {"decode_step_s", row.decode_step.measured_seconds},
          {"decode_step_predicted_s", row.decode_step.predicted_seconds},
          {"decode_ledger", stages}};
}

json to_json(const SteadyResult& steady) {
  json stages = json::array();
  for (const LedgerTotals& stage : steady.stages) stages.push_back(stage);
  return {{"concurrent", steady.concurrent},
          {"seconds", steady.seconds},
          {"tokens_per_s", steady.tokens_per_s},
          {"reached", steady.reached()},
          {"reached_of_best_cut", steady.reached_of_best()},
          {"efficiency", steady.efficiency()},
          {"cut_allows", steady.cut_allows()},
          {"evictions", steady.evictions},
          {"ledger", stages}};
}

std::string format_device(const StageSetup& setup) {
  std::string text =
      fmt::format("device: {}, link {}\n", setup.stage->numeric_class(), setup.links.name);
  if (!setup.rehearsal.empty()) {
    text += fmt::format("A rehearsal of {}: nothing was computed, times are predictions.\n",
                        setup.rehearsal);
  }
  text += fmt::format(
      "{}, KV cache of {} tokens\n", format_slots(setup.options.slots, setup.trip_seconds),
      format_grouped(std::uint64_t{setup.options.kv_blocks} * model::kKvBlockTokens));
  if (!setup.device.note.empty()) text += setup.device.note + "\n";
  for (const StageReport& stage : setup.reports) {
    if (!stage.gpu.empty()) {
      text += fmt::format("rank {}: {}, {}\n", stage.rank, stage.gpu, stage.gpu_uuid);
    }
  }
  text += "stages cut " + setup.cut.source + "\n";
  for (const StageReport& stage : setup.reports) {
    text += fmt::format("stage {}: layers {}-{}, step {}\n", stage.stage, stage.layer_begin,
                        stage.layer_end - 1, stage.predicted);
  }
  if (setup.rehearsal.empty()) text += format_reads(setup.reports, setup.checkpoint.size_bytes());
  for (const std::string& edge : setup.links.edges) text += edge + "\n";
  for (const std::string& warning : setup.warnings) text += "warning: " + warning + "\n";
  return text;
}

void print_results(const std::vector<BenchRow>& rows, const std::optional<SteadyResult>& steady,
                   const model::MachineLimits& machine, const StageSetup& setup,
                   const BenchOptions& options) {
  std::string text;
  if (options.json) {
    std::vector<std::int64_t> layers;
    for (const model::StageRange& range : setup.cut.ranges) layers.push_back(range.layers());
    json all = {
        {"version", options.version},
        {"checkpoint", options.pipeline.checkpoint},
        {"stages", setup.reports.size()},
        {"slots", setup.options.slots},
        {"trip_seconds", setup.trip_seconds},
        {"threads", setup.reports[0].threads},
        {"dtype", io::to_string(setup.dtype)},
        {"numeric_class", setup.stage->numeric_class()},
        {"link", setup.links.name},
        {"cut", setup.cut.source},
        {"layers", layers},
        {"edges", setup.links.edges},
        {"prompt_tokens", options.prompt_tokens},
        {"generated_tokens", options.generated_tokens},
        {"load_bytes_per_s", load_bytes_per_s(setup.reports)},
        {"machine",
         {{"flops_per_s", machine.flops_per_second}, {"bytes_per_s", machine.bytes_per_second}}},
        {"rows", json::array()}};
    for (const BenchRow& row : rows) all["rows"].push_back(to_json(row));
    if (steady) all["steady"] = to_json(*steady);
    if (!setup.rehearsal.empty()) all["rehearsal"] = setup.rehearsal;
    text = all.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  } else {
    text = format_device(setup) + (steady ? format_steady(*steady, options)
                                          : format_bench(rows, machine, options, setup.rehearsal));
  }
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace

double prefill_limit(const StageSetup& setup, const model::MachineLimits& machine,
                     const BenchOptions& options, std::uint32_t batch) {
  const ModelWork work = whole_model(setup);
  const double attended = (static_cast<double>(options.prompt_tokens) + 1) / 2;
  // Only a prompt's last token goes through the head.
  const double head = (work.flops - work.body_flops) / options.prompt_tokens;
  const double flops = work.body_flops + head + work.attention_flops_per_position * attended;
  // The weights are read once a step.
  const double step_tokens = std::min<double>(setup.options.max_step_tokens,
                                              static_cast<double>(batch) * options.prompt_tokens);
  const double bytes = work.weight_bytes / step_tokens;
  return 1.0 / std::max(flops / machine.flops_per_second, bytes / machine.bytes_per_second);
}

double decode_limit(const StageSetup& setup, const model::MachineLimits& machine,
                    const BenchOptions& options, std::uint32_t batch) {
  const ModelWork work = whole_model(setup);
  const double context = options.prompt_tokens + options.generated_tokens / 2.0;
  const double flops = work.flops + work.attention_flops_per_position * context;
  const double bytes = work.weight_bytes / batch + work.kv_bytes_per_position * context;
  return 1.0 / std::max(flops / machine.flops_per_second, bytes / machine.bytes_per_second);
}

std::string format_bench(const std::vector<BenchRow>& rows, const model::MachineLimits& machine,
                         const BenchOptions& options, const std::string& rehearsal) {
  std::string text = fmt::format(
      "machine: {:.0f} GFLOP/s, {:.1f} GB/s ({}, all ranks together)\n"
      "prompt {} tokens, answer {} tokens; tokens/s, share of the machine's limit in brackets\n\n"
      "{:>6}  {:>18}  {:>18}\n",
      machine.flops_per_second / 1e9, machine.bytes_per_second / 1e9,
      rehearsal.empty() ? "measured now" : "as described", options.prompt_tokens,
      options.generated_tokens, "batch", "prefill", "decode");
  for (const BenchRow& row : rows) {
    text +=
        fmt::format("{:>6}  {:>10.0f} ({:>3.0f} %)  {:>10.0f} ({:>3.0f} %)\n", row.batch,
                    row.prefill_tokens_per_s, 100 * row.prefill_tokens_per_s / row.prefill_limit,
                    row.decode_tokens_per_s, 100 * row.decode_tokens_per_s / row.decode_limit);
  }
  for (const BenchRow& row : rows) {
    text += fmt::format("\nsteady decode at batch {}:\n{}", row.batch,
                        format_ledger(row.decode_ledger, terminal_width()));
    const std::string step = format_step_times(row.decode_step);
    if (!step.empty()) text += "step: " + step + "\n";
  }
  return text;
}

std::string format_steady(const SteadyResult& result, const BenchOptions& options) {
  const auto stages = static_cast<double>(result.stages.size());
  const auto rate = [&](double share) {
    return share > 0 ? format_grouped(std::llround(result.tokens_per_s / share)) : "?";
  };
  std::string text = fmt::format(
      "prompt {} tokens, answer {} tokens, {} records at once, without end\n\n"
      "tokens of answers/s                {:>10}\n"
      "the busiest stage, never waiting   {:>10}  ({:.1f} % reached)\n"
      "the best cut of whole layers       {:>10}  ({:.1f} % reached)\n"
      "{:>2} x one device with all layers    {:>10}  ({:.1f} % reached; layers being whole, {:.1f} "
      "% "
      "can be)\n",
      options.prompt_tokens, options.generated_tokens, format_grouped(result.concurrent), rate(1),
      rate(result.reached()), 100 * result.reached(), rate(result.reached_of_best()),
      100 * result.reached_of_best(), stages, rate(result.efficiency()), 100 * result.efficiency(),
      100 * result.cut_allows());
  std::vector<StageLedger> ledger;
  for (std::size_t i = 0; i < result.stages.size(); ++i) {
    ledger.push_back({static_cast<int>(i), static_cast<int>(i), result.stages[i]});
  }
  return text + fmt::format("\nsteady state, over {}, {} evictions since the beginning:\n{}",
                            format_duration(result.seconds), format_grouped(result.evictions),
                            format_ledger(ledger, terminal_width()));
}

int run_bench(const comm::World& world, const BenchOptions& options) {
  const Layout layout = choose_layout(world, options.pipeline.link, options.pipeline.stages, 1);
  return run_stages(
      world, layout,
      [&](comm::Endpoint& endpoint) {
        const StageDevice device =
            take_device(endpoint, options.pipeline.device, options.pipeline.link, layout);
        StageSetup setup = set_up_stage(endpoint, world, layout, device, cut_for(options, layout));
        agree_on_equal(endpoint, {{"--batch", options.batches},
                                  {"--prompt", options.prompt_tokens},
                                  {"--generate", options.generated_tokens},
                                  {"--steady", options.steady}});
        agree_on(endpoint, "the size of the benchmark", [&] { check_size(setup, options); });
        const bool is_driver = endpoint.control->member() == 0;
        if (options.steady) {
          const SteadyResult steady = run_steady(endpoint, setup, options);
          if (is_driver) print_results({}, steady, {}, setup, options);
          return 0;
        }
        const auto& described = options.pipeline.machine;
        const model::MachineLimits machine =
            described ? described_limits(setup, *described) : measure_all(endpoint, setup);
        // Memory is first touched in an unmeasured phase.
        BenchWorkload warm_up(*std::max_element(options.batches.begin(), options.batches.end()),
                              options.prompt_tokens, 1, setup.config.vocab_size);
        run_phase(endpoint, setup, warm_up);
        std::vector<BenchRow> rows;
        for (const std::uint32_t batch : options.batches) {
          BenchWorkload prefill(batch, options.prompt_tokens, 1, setup.config.vocab_size);
          run_phase(endpoint, setup, prefill);
          BenchWorkload decode(batch, options.prompt_tokens, options.generated_tokens,
                               setup.config.vocab_size);
          const PipelineTotals totals = run_phase(endpoint, setup, decode);
          if (!is_driver) continue;
          BenchRow row;
          row.batch = batch;
          row.prefill_tokens_per_s =
              static_cast<double>(batch) * options.prompt_tokens / prefill.prefill_seconds();
          row.decode_tokens_per_s = decode.decode_tokens_per_second();
          row.prefill_limit = prefill_limit(setup, machine, options, batch);
          row.decode_limit = decode_limit(setup, machine, options, batch);
          row.decode_ledger = steady_ledger(totals, setup);
          row.decode_step = steady_step_times(row.decode_ledger, decode, setup, options);
          rows.push_back(std::move(row));
        }
        if (is_driver) print_results(rows, std::nullopt, machine, setup, options);
        return 0;
      },
      options.pipeline.watchdog);
}

}  // namespace penstock::jobs
