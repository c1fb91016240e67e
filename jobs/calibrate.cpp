#include "jobs/calibrate.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <thread>

#include "io/error.hpp"
#include "jobs/agreement.hpp"
#include "jobs/stage_setup.hpp"
#include "model/error.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

// Each step is measured in so many rounds, with all others between them, since what else the
// machine does comes and goes.
constexpr int kRounds = 7;
// Where steps are slow, so few.
constexpr int kFewestRounds = 3;
constexpr std::chrono::minutes kLongEnough{2};
constexpr std::chrono::milliseconds kPerRound{30};
constexpr std::uint32_t kCpuRows = 512;
constexpr std::uint32_t kGpuRows = 2048;
constexpr std::uint32_t kMostSequences = 256;

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// A network of the checkpoint's embedding, first layers and head: what all kinds of stages are made
// of, so that each rank measures all of it, whichever stage is its own.
struct Subject {
  std::optional<io::CheckpointReader> checkpoint;
  model::ModelConfig config;
  DeviceKind device = DeviceKind::cpu;
  model::StageOptions options;
  std::uint32_t context = 0;
  model::CalibrationKey key;
  std::uint64_t memory_bytes = 0;

  std::unique_ptr<model::Stage> stage(std::int64_t layers, std::uint32_t kv_blocks,
                                      const model::LoadProgress& progress) const {
    model::ModelConfig part = config;
    part.num_layers = layers;
    const auto make = device == DeviceKind::cuda ? model::make_cuda_stage : model::make_cpu_stage;
    auto stage = make(*checkpoint, part, {0, layers, true, true}, options, progress);
    stage->allocate_kv(kv_blocks);
    return stage;
  }
};

Subject open(const comm::World& world, const Layout& layout, const StageDevice& device,
             const PipelineChoice& choice) {
  Subject subject;
  subject.checkpoint.emplace(choice.checkpoint, io::CheckpointReader::Contents::without_tokenizer);
  if (subject.checkpoint->header().no_data) {
    throw io::FileError(choice.checkpoint, "holds shapes only (synth --no-data); it cannot run");
  }
  const RankPlace place = place_of(world, layout);
  subject.config = model::from_attributes(subject.checkpoint->header().config);
  subject.device = device.kind;
  subject.options.dtype = compute_dtype(choice, device.kind, subject.checkpoint->header().dtype);
  subject.options.kv_dtype = compute_kv_dtype(choice, device.kind, subject.options.dtype);
  subject.options.threads = place.threads(choice);
  subject.options.memory_bytes = load_memory(device, place.node_ranks);
  subject.options.max_rows = choice.max_step_tokens > 0        ? choice.max_step_tokens
                             : device.kind == DeviceKind::cuda ? kGpuRows
                                                               : kCpuRows;
  subject.options.max_samples = std::min(kMostSequences, subject.options.max_rows);
  subject.options.gpu = device.gpu.index;
  subject.context = context_limit(subject.config, choice);
  subject.options.max_context = subject.context;
  subject.key = calibration_key(device, place, subject.options.threads, subject.config,
                                subject.options.dtype, subject.options.kv_dtype);
  subject.memory_bytes = subject.options.memory_bytes > 0 ? subject.options.memory_bytes
                                                          : comm::device::gpu_memory().free_bytes;
  return subject;
}

// As many layers as a stage has, since a single one would stay in the processor's cache; fewer
// where memory is short.
std::int64_t layers_to_measure(const Subject& subject, int stages, std::uint32_t kv_blocks) {
  const std::int64_t all = subject.config.num_layers;
  const std::int64_t wanted = std::max<std::int64_t>((all + stages - 1) / stages, 2);
  const auto bytes =
      model::part_bytes(subject.config, subject.options.dtype, subject.options.kv_dtype,
                        std::uint64_t{kv_blocks} * model::kKvBlockTokens);
  const std::uint64_t ends = bytes.embedding + bytes.head;
  // The rest is for activations, and for packing weights.
  const std::uint64_t memory = subject.memory_bytes / 10 * 9;
  const std::uint64_t fit = memory > ends ? (memory - ends) / bytes.layer : 0;
  if (fit < 2) {
    throw model::ModelError(fmt::format(
        "two layers, the embedding and the head, which are measured together, take {} with their "
        "KV cache, more than the {} that this rank has: start fewer ranks on a node",
        format_bytes(ends + 2 * bytes.layer), format_bytes(memory)));
  }
  return std::min({wanted, all, static_cast<std::int64_t>(std::min<std::uint64_t>(fit, 1 << 20))});
}

// One step of a stage that has all its layers' ends told by forward() as it computes them.
model::PartSample time_parts(model::Stage& stage, const model::StepPlan& plan,
                             std::int64_t layers) {
  std::vector<Clock::time_point> stamps;
  const Clock::time_point begin = Clock::now();
  stage.forward(plan, {}, {}, [&] { stamps.push_back(Clock::now()); });
  const Clock::time_point end = Clock::now();
  const auto each = stamps.size() / static_cast<std::size_t>(layers);
  if (each == 0 || stamps.size() % each != 0) {
    throw std::logic_error("a stage told of its progress outside its layers");
  }
  model::PartSample sample;
  const Clock::time_point first = stamps[each - 1];  // the end of the first layer
  sample.head = seconds(end - stamps.back());
  sample.layer = seconds(stamps.back() - first) / static_cast<double>(layers - 1);
  sample.rest = std::max(0.0, seconds(first - begin) - sample.layer);
  return sample;
}

// A whole step, on a GPU until it is done.
double time_step(model::Stage& stage, const model::StepPlan& plan) {
  const Clock::time_point begin = Clock::now();
  stage.forward(plan, {}, {}, [] {});
  while (!stage.ready()) std::this_thread::yield();
  return seconds(Clock::now() - begin);
}

// Calls `measure` for every step again and again, on all ranks at once, since those of a node share
// its memory. The first round is for memory that was never touched and code that was never run.
void in_rounds(comm::Endpoint& endpoint, std::span<const CalibrationStep> steps,
               const std::function<void(std::size_t, bool)>& measure) {
  const Clock::time_point begin = Clock::now();
  for (int round = -1; round < kRounds; ++round) {
    const bool enough = round >= kFewestRounds && Clock::now() - begin > kLongEnough;
    const auto of_all =
        endpoint.control->all_gather(enough ? "enough" : "", "the next round", endpoint.watchdog);
    if (!of_all[0].empty()) return;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      endpoint.control->all_gather("", "the next measurement", endpoint.watchdog);
      const Clock::time_point end = Clock::now() + kPerRound;
      do {
        measure(i, round >= 0);
        endpoint.control->beat(1);
      } while (round >= 0 && Clock::now() < end);
    }
  }
}

void fill(comm::Endpoint& endpoint, model::Stage& stage, CalibrationPlans& plans,
          const Subject& subject) {
  stage.begin_run();
  for (const model::StepPlan& plan :
       plans.fill(subject.options.max_rows, subject.config.vocab_size)) {
    time_step(stage, plan);
    endpoint.control->beat(1);
  }
}

// On a CPU forward() tells where it is, so that one stage shows all parts.
std::vector<model::PartSample> measure_cpu(comm::Endpoint& endpoint, const Subject& subject,
                                           std::span<const CalibrationStep> steps,
                                           std::int64_t layers,
                                           const model::LoadProgress& progress) {
  CalibrationPlans plans(steps);
  std::unique_ptr<model::Stage> stage;
  agree_on(endpoint, "loading weights", [&] {
    stage = subject.stage(layers, plans.kv_blocks(), progress);
    fill(endpoint, *stage, plans, subject);
  });
  struct Times {
    std::vector<double> rest, layer, head;
  };
  std::vector<Times> times(steps.size());
  in_rounds(endpoint, steps, [&](std::size_t i, bool counts) {
    const auto sample = time_parts(*stage, plans.plan(steps[i], subject.config.vocab_size), layers);
    if (!counts) return;
    times[i].rest.push_back(sample.rest);
    times[i].layer.push_back(sample.layer);
    times[i].head.push_back(sample.head);
  });
  std::vector<model::PartSample> samples;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    samples.push_back({steps[i].shape(), median(times[i].rest), median(times[i].layer),
                       median(times[i].head), steps[i].drawn});
  }
  return samples;
}

// A GPU computes behind forward(), so stages of different length, and steps with and without
// sampling, tell the parts by their differences.
std::vector<model::PartSample> measure_gpu(comm::Endpoint& endpoint, const Subject& subject,
                                           std::span<const CalibrationStep> steps,
                                           std::int64_t layers,
                                           const model::LoadProgress& progress) {
  const auto whole_steps = [&](std::int64_t count, bool sample) {
    CalibrationPlans plans(steps);
    std::unique_ptr<model::Stage> stage;
    agree_on(endpoint, "loading weights", [&] {
      stage = subject.stage(count, plans.kv_blocks(), progress);
      fill(endpoint, *stage, plans, subject);
    });
    std::vector<std::vector<double>> times(steps.size());
    in_rounds(endpoint, steps, [&](std::size_t i, bool counts) {
      CalibrationStep step = steps[i];
      step.sample = sample;
      const double time = time_step(*stage, plans.plan(step, subject.config.vocab_size));
      if (counts) times[i].push_back(time);
    });
    std::vector<double> medians;
    for (const auto& list : times) medians.push_back(median(list));
    return medians;
  };
  const std::int64_t less = layers / 2;
  const std::vector<double> whole = whole_steps(layers, true);
  const std::vector<double> no_head = whole_steps(layers, false);
  const std::vector<double> shorter = whole_steps(less, true);
  std::vector<model::PartSample> samples;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    model::PartSample sample{steps[i].shape(), 0, 0, 0, steps[i].drawn};
    sample.layer = std::max(0.0, whole[i] - shorter[i]) / static_cast<double>(layers - less);
    sample.head = std::max(0.0, whole[i] - no_head[i]);
    sample.rest = std::max(0.0, no_head[i] - static_cast<double>(layers) * sample.layer);
    samples.push_back(sample);
  }
  return samples;
}

// What the ranks of one kind of machine measured.
struct Kind {
  std::vector<int> ranks;
  std::vector<model::PartSample> sums;
};

std::map<model::CalibrationKey, Kind> gather(comm::Endpoint& endpoint, int rank,
                                             const model::CalibrationKey& key,
                                             std::span<const model::PartSample> samples) {
  json mine = {{"rank", rank},
               {"key",
                {key.device, key.numeric_class, key.threads, key.sharers, key.dtype, key.kv_dtype,
                 key.network}},
               {"times", json::array()}};
  for (const auto& sample : samples) {
    mine["times"].push_back({sample.rest, sample.layer, sample.head});
  }
  std::map<model::CalibrationKey, Kind> kinds;
  for (const std::string& text :
       endpoint.control->all_gather(mine.dump(-1, ' ', false, json::error_handler_t::replace),
                                    "the measurements", endpoint.watchdog)) {
    const json theirs = json::parse(text);
    const json& k = theirs.at("key");
    Kind& kind = kinds[{k.at(0), k.at(1), k.at(2), k.at(3), k.at(4), k.at(5), k.at(6)}];
    kind.ranks.push_back(theirs.at("rank"));
    kind.sums.resize(samples.size());
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const json& times = theirs.at("times").at(i);
      kind.sums[i].shape = samples[i].shape;
      kind.sums[i].drawn = samples[i].drawn;
      kind.sums[i].rest += times.at(0).get<double>();
      kind.sums[i].layer += times.at(1).get<double>();
      kind.sums[i].head += times.at(2).get<double>();
    }
  }
  return kinds;
}

model::PartTables tables_of(Kind kind) {
  const auto ranks = static_cast<double>(kind.ranks.size());
  for (model::PartSample& sample : kind.sums) {
    sample.rest /= ranks;
    sample.layer /= ranks;
    sample.head /= ranks;
  }
  return model::fit_tables(kind.sums);
}

std::string format_tables(const model::CalibrationKey& key, const Kind& kind,
                          const model::PartTables& tables, std::int64_t layers) {
  std::string text =
      fmt::format("{}\nranks {}, {} layers each; milliseconds\n\n{:>6}  {:>9}  {:>9}  {:>9}\n",
                  model::describe(key), fmt::join(kind.ranks, ", "), layers, "rows", "embedding",
                  "layer", "head");
  for (const auto& [rows, layer] : tables.layer.points) {
    const bool sampled = rows <= tables.head.points.back().first;
    text += fmt::format("{:>6}  {:>9.3f}  {:>9.3f}  {:>9}\n", rows,
                        1e3 * tables.embedding.seconds(rows), 1e3 * layer,
                        sampled ? fmt::format("{:.3f}", 1e3 * tables.head.seconds(rows)) : "");
  }
  const auto& [drawn, seconds] = tables.drawn.points.back();
  return text +
         fmt::format(
             "attention, of a layer: {:.3g} ms for 1,000 positions that are attended to, {:.3g} "
             "for "
             "1,000 that are read\nthe head samples greedily; to draw {} tokens at random takes it "
             "{:.3f} ms more\n\n",
             1e6 * tables.attended_seconds, 1e6 * tables.cached_seconds, drawn, 1e3 * seconds);
}

// Keeps what the file has of other machines.
void store(const std::string& path, const std::map<model::CalibrationKey, Kind>& kinds,
           const BenchOptions& options, std::int64_t layers) {
  const std::string measured =
      fmt::format("{:%Y-%m-%d}, {}", fmt::gmtime(std::time(nullptr)), options.version);
  model::Calibrations now;
  std::string text;
  for (const auto& [key, kind] : kinds) {
    const model::PartTables tables = tables_of(kind);
    text += format_tables(key, kind, tables, layers);
    now[key] = {tables, measured};
  }
  model::Calibrations all = model::read_calibrations(path);
  for (const auto& [key, calibration] : now) all[key] = calibration;
  model::write_calibrations(path, all);
  text = options.json ? model::calibration_text(now) : text + "written to " + path + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

int calibrate(comm::Endpoint& endpoint, const comm::World& world, const Layout& layout,
              const BenchOptions& options) {
  const PipelineChoice& choice = options.pipeline;
  const std::string path = model::calibration_path(choice.checkpoint);
  const StageDevice device = take_device(endpoint, choice.device, choice.link, layout);
  Subject subject;
  std::vector<CalibrationStep> steps;
  std::int64_t layers = 0;
  agree_on(endpoint, "preparing the measurement", [&] {
    if (device.kind == DeviceKind::virtual_device) {
      throw UsageError("--calibrate measures devices; virtual ones are described");
    }
    // A file that is something else is not written over, which is to be known before the work.
    if (endpoint.control->member() == 0) model::read_calibrations(path);
    subject = open(world, layout, device, choice);
    steps =
        calibration_steps(subject.options.max_rows, subject.options.max_samples, subject.context);
    if (subject.config.num_layers < 2) {
      throw model::ModelError("a model of one layer needs no calibration: it is one stage");
    }
    layers = layers_to_measure(subject, layout.stages, CalibrationPlans(steps).kv_blocks());
  });
  agree_on_equal(endpoint, {{"the checkpoint's digest", subject.checkpoint->digest()},
                            {"--dtype", io::to_string(subject.options.dtype)},
                            {"--kv-dtype", io::to_string(subject.options.kv_dtype)},
                            {"--max-step-tokens", subject.options.max_rows},
                            {"--max-context", subject.context}});
  const auto progress = [&, told = std::uint64_t{0}](std::uint64_t done, std::uint64_t) mutable {
    endpoint.control->beat(done > told ? done - told : 0);
    told = done;
  };
  const auto measure = device.kind == DeviceKind::cuda ? measure_gpu : measure_cpu;
  const auto samples = measure(endpoint, subject, steps, layers, progress);
  const auto kinds = gather(endpoint, world.rank(), subject.key, samples);
  agree_on(endpoint, "writing the calibration", [&] {
    if (endpoint.control->member() == 0) store(path, kinds, options, layers);
  });
  return 0;
}

}  // namespace

int run_calibrate(const comm::World& world, const BenchOptions& options) {
  const Layout layout = choose_layout(world, options.pipeline.link, options.pipeline.stages, 1);
  return run_stages(
      world, layout,
      [&](comm::Endpoint& endpoint) { return calibrate(endpoint, world, layout, options); },
      options.pipeline.watchdog);
}

}  // namespace penstock::jobs
