#include "jobs/stage_setup.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "comm/topology.hpp"
#include "io/error.hpp"
#include "jobs/round_trip.hpp"
#include "jobs/slots.hpp"
#include "jobs/stage_context.hpp"
#include "jobs/stage_copy.hpp"
#include "model/error.hpp"
#include "model/gpu_sizes.hpp"
#include "model/load_weights.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

// Models for the balance of steps, where only ratios count, and for the number of slots, where a
// rough guess will do; measured limits belong to bench.
constexpr model::MachineLimits kTypicalCore{100e9, 10e9};
constexpr model::MachineLimits kTypicalGpu{500e12, 2.5e12};

// The checkpoint, and what follows from it and the options. But for `parts`, which go by the rank's
// own threads, the same on all stages.
struct Opened {
  std::optional<io::CheckpointReader> checkpoint;
  model::ModelConfig config;
  model::StageOptions stage_options;
  PipelineOptions options;
  std::uint32_t context_limit = 0;
  std::shared_ptr<const model::PartCost> parts;
  std::string machine;  // figures of the virtual one
};

std::size_t activation_row_bytes(const Opened& run) {
  return static_cast<std::size_t>(run.config.hidden_size) * io::size_of(run.stage_options.dtype);
}

std::shared_ptr<const model::PartCost> part_costs(const Opened& run, const StageDevice& device,
                                                  const PipelineChoice& choice, int threads) {
  const model::StageOptions& o = run.stage_options;
  if (choice.machine) {
    return model::cost_by_device(run.config, o.dtype, o.kv_dtype, choice.machine->device);
  }
  const double cores = threads;
  return model::cost_by_limits(run.config, o.dtype, o.kv_dtype,
                               device.kind == DeviceKind::cuda
                                   ? kTypicalGpu
                                   : model::MachineLimits{cores * kTypicalCore.flops_per_second,
                                                          cores * kTypicalCore.bytes_per_second});
}

// As the user says, or as many as the links need: those of a rehearsal as they are described, for
// the replica that needs most; real ones, which are connected, as they are measured.
SlotChoice choose_slots(comm::Endpoint& endpoint, const Opened& run, const StageDevice& device,
                        const PipelineChoice& choice, const StageCut& cut, const Layout& layout) {
  if (choice.slots > 0) return {choice.slots};
  if (cut.ranges.size() == 1) return {1};
  const std::size_t row_bytes = activation_row_bytes(run);
  const std::uint32_t sequences = run.options.max_sequences;
  if (choice.machine) {
    std::uint32_t most = 0;
    for (int first_rank = 0; first_rank < layout.ranks(); first_rank += layout.stages) {
      most = std::max(most, slots_for(*choice.machine, *run.parts, cut.ranges, first_rank,
                                      static_cast<double>(row_bytes), sequences));
    }
    return {most};
  }
  std::unique_ptr<model::Stage> idle;
  agree_on(endpoint, "measuring the trip through the pipeline", [&] {
    idle = device.kind == DeviceKind::cuda ? model::make_idle_cuda_stage(row_bytes)
                                           : model::make_idle_stage(row_bytes);
  });
  return agree_on_slots(endpoint, *idle, cut, sequences);
}

Opened open_checkpoint(comm::Endpoint& endpoint, const StageDevice& device,
                       const PipelineChoice& choice, const RankPlace& place,
                       std::optional<io::CheckpointReader> opened) {
  Opened run;
  run.checkpoint = std::move(opened);
  const bool gpu = choice.machine ? choice.machine->gpus : device.kind == DeviceKind::cuda;
  agree_on(endpoint, "opening the checkpoint", [&] {
    if (!run.checkpoint) {
      run.checkpoint.emplace(choice.checkpoint,
                             endpoint.control->member() == 0
                                 ? io::CheckpointReader::Contents::all
                                 : io::CheckpointReader::Contents::without_tokenizer);
    }
    if (run.checkpoint->header().no_data && device.kind != DeviceKind::virtual_device) {
      throw io::FileError(choice.checkpoint,
                          "holds shapes only (synth --no-data); only --device virtual runs it");
    }
    run.config = model::from_attributes(run.checkpoint->header().config);
    run.stage_options.memory_bytes = load_memory(device, place.node_ranks);
    run.stage_options.dtype = compute_dtype(choice, device.kind, run.checkpoint->header().dtype);
    run.stage_options.kv_dtype = compute_kv_dtype(choice, device.kind, run.stage_options.dtype);
    run.context_limit = context_limit(run.config, choice);
    run.options.max_step_tokens = choice.max_step_tokens > 0 ? choice.max_step_tokens
                                  : gpu                      ? kGpuStepTokens
                                                             : kCpuStepTokens;
    run.options.max_sequences = std::min(run.options.max_sequences, run.options.max_step_tokens);
    run.parts = part_costs(run, device, choice, place.threads(choice));
    if (choice.machine) run.machine = figures(*choice.machine);
  });

  agree_on_equal(endpoint, {{"the checkpoint's digest", run.checkpoint->digest()},
                            {"--dtype", io::to_string(run.stage_options.dtype)},
                            {"--kv-dtype", io::to_string(run.stage_options.kv_dtype)},
                            {"--slots", choice.slots},
                            {"--max-step-tokens", run.options.max_step_tokens},
                            {"--max-context", run.context_limit},
                            {"--layers", choice.layers},
                            {"--virtual", run.machine},
                            {"--virtual-realtime", choice.realtime},
                            {"--watchdog-seconds", choice.watchdog.count()}});
  return run;
}

// What this rank has for weights and KV cache, less what the largest step's activations take.
std::uint64_t cut_memory(const StageDevice& device, const PipelineChoice& choice, const Opened& run,
                         int stages) {
  std::uint64_t memory = run.stage_options.memory_bytes;
  if (choice.machine) {
    memory = choice.machine->device.memory_bytes;
    memory -= std::min(memory, model::gpu_reserve_bytes(memory));
  } else if (memory == 0) {
    memory = comm::device::gpu_memory().free_bytes;
  }
  // On a GPU there are buffers for every slot from the start.
  const std::uint32_t slots =
      choice.slots > 0 ? choice.slots : most_slots(static_cast<std::size_t>(stages));
  const int buffered = device.kind == DeviceKind::cpu ? 0 : static_cast<int>(slots);
  const std::uint64_t left = memory_beside_steps(memory, run.config, run.stage_options.dtype,
                                                 run.options.max_step_tokens, buffered);
  // More than there is gets its message when the cache is sized.
  return choice.kv_memory < left ? left - choice.kv_memory : left;
}

StageCut cut_stages(comm::Endpoint& endpoint, const StageDevice& device,
                    const PipelineChoice& choice, const Opened& run, const RankPlace& place) {
  CutInput mine;
  agree_on(endpoint, "looking at the machine", [&] {
    mine.config = run.config;
    mine.dtype = run.stage_options.dtype;
    mine.kv_dtype = run.stage_options.kv_dtype;
    mine.memory_bytes = cut_memory(device, choice, run, endpoint.control->size());
    // One sequence of any length; --kv-memory is set aside already.
    mine.kv_tokens = choice.kv_memory > 0 ? 0 : run.context_limit;
    mine.layers = choice.layers;
    mine.step = choice.step;
    mine.drawn = choice.drawn;
    mine.modelled = run.parts;
    if (choice.machine) {
      mine.described = choice.machine->text;
    } else {
      mine.key = calibration_key(device, place, place.threads(choice), run.config, mine.dtype,
                                 mine.kv_dtype);
      mine.calibration = model::calibration_path(choice.checkpoint);
    }
  });
  return agree_on_cut(endpoint, mine);
}

// Arrivals in real time are times of one host's clock.
StageClock rehearsal_clock(comm::Endpoint& endpoint, const comm::World& world,
                           const PipelineChoice& choice, int rank) {
  agree_on(endpoint, "--virtual-realtime", [&] {
    if (choice.realtime && world.node_size() != world.size()) {
      throw UsageError(fmt::format(
          "--virtual-realtime needs all ranks on one host, and {} of {} are on this one: start "
          "them there, or leave it out",
          world.node_size(), world.size()));
    }
  });
  return {choice.realtime ? StageClock::Kind::realtime : StageClock::Kind::rehearsal,
          choice.machine->edge(rank, rank + 1), choice.machine->control};
}

// The blocks of this pipeline's smallest stage, allocated on all of them, once the numeric classes
// of all replicas are known to be one. Warnings about the placement of ranks come along.
void size_kv_cache(comm::Endpoint& endpoint, StageSetup& setup, const PipelineChoice& choice,
                   const comm::CpuPlacement& placement, int node_ranks) {
  json mine;
  agree_on(endpoint, "sizing the KV cache", [&] {
    mine["blocks"] = affordable_kv_blocks({*setup.stage, setup.device, setup.options,
                                           setup.context_limit, choice.kv_memory, node_ranks});
    mine["numeric_class"] = setup.stage->numeric_class();
    const bool computes = setup.device.kind != DeviceKind::virtual_device;
    mine["warning"] =
        choice.threads > 0 || !computes ? "" : comm::binding_warning(placement, node_ranks);
  });
  std::uint64_t blocks = std::numeric_limits<std::uint32_t>::max();
  std::vector<std::string> classes;
  for (const std::string& text :
       endpoint.all().all_gather(mine.dump(), "sizing the KV cache", endpoint.watchdog)) {
    const json theirs = json::parse(text);
    if (static_cast<int>(classes.size()) / endpoint.control->size() == endpoint.pipeline) {
      blocks = std::min(blocks, theirs.at("blocks").get<std::uint64_t>());
    }
    classes.push_back(theirs.at("numeric_class"));
    const std::string warning = theirs.at("warning");
    if (!warning.empty() &&
        std::find(setup.warnings.begin(), setup.warnings.end(), warning) == setup.warnings.end()) {
      setup.warnings.push_back(warning);
    }
  }
  setup.options.kv_blocks = static_cast<std::uint32_t>(blocks);
  agree_on(endpoint, "allocating the KV cache", [&] {
    for (std::size_t i = 0; i < classes.size(); ++i) {
      if (classes[i] != classes[0]) {
        throw UsageError(fmt::format(
            "stages compute in different numeric classes ('{}' on {}, '{}' on {}), so "
            "answers would depend on the layout: use nodes of one kind{}",
            classes[0], endpoint.all().describe(0), classes[i],
            endpoint.all().describe(static_cast<int>(i)),
            setup.device.kind == DeviceKind::cuda
                ? ""
                : ", or, where only the word before onednn differs, set ONEDNN_MAX_CPU_ISA to what "
                  "all of them have"));
      }
    }
    setup.stage->allocate_kv(setup.options.kv_blocks);
  });
}

}  // namespace

model::CalibrationKey calibration_key(const StageDevice& device, const RankPlace& place,
                                      int threads, const model::ModelConfig& config,
                                      io::DType dtype, io::DType kv_dtype) {
  model::CalibrationKey key;
  if (device.kind == DeviceKind::cuda) {
    key.device = device.gpu.name;
    key.numeric_class = fmt::format("compute capability {}.{}", device.gpu.major, device.gpu.minor);
    key.threads = 0;
    key.sharers = device.sharers;
  } else {
    key.device = comm::cpu_name();
    key.numeric_class = model::cpu_numeric_class();
    key.threads = threads;
    key.sharers = place.node_ranks;
  }
  key.dtype = io::to_string(dtype);
  key.kv_dtype = io::to_string(kv_dtype);
  key.network = model::describe_parts(config);
  return key;
}

StageSetup set_up_stage(comm::Endpoint& endpoint, const comm::World& world, const Layout& layout,
                        const StageDevice& device, const PipelineChoice& choice,
                        std::optional<io::CheckpointReader> opened,
                        const model::LoadProgress& loading) {
  const Ledger::Time begin = steady_now();
  const bool gpu = device.kind == DeviceKind::cuda;
  const bool rehearsed = device.kind == DeviceKind::virtual_device;
  const int member = endpoint.control->member();
  const RankPlace place = place_of(world, layout);
  const comm::CpuPlacement& placement = place.cpus;
  const int node_ranks = place.node_ranks;

  // Where threads are stages, each stands for a rank.
  const int rank = endpoint.all().member();
  Opened run = open_checkpoint(endpoint, device, choice, place, std::move(opened));
  StageCut cut = cut_stages(endpoint, device, choice, run, place);
  if (rehearsed) {
    run.options.clock = rehearsal_clock(endpoint, world, choice, rank);
  }
  StageReport report;
  const model::StageRange range = cut.ranges[static_cast<std::size_t>(member)];
  report.predicted = format_predicted(cut)[static_cast<std::size_t>(member)];
  report.rank = world.rank();
  report.host = placement.host;
  report.replica = endpoint.pipeline;
  report.stage = member;
  report.layer_begin = range.begin;
  report.layer_end = range.end;
  report.threads = rehearsed && choice.threads == 0 ? 1 : place.threads(choice);
  run.stage_options.threads = report.threads;
  run.stage_options.max_rows = run.options.max_step_tokens;
  run.stage_options.max_samples = run.options.max_sequences;
  run.stage_options.gpu = device.gpu.index;
  run.stage_options.max_context = run.context_limit;

  // Counts from nothing for each pass over the bytes.
  const auto alive = [&] {
    return [&, told_bytes = std::uint64_t{0}](std::uint64_t done, std::uint64_t total) mutable {
      endpoint.beat(done - told_bytes);
      told_bytes = done;
      if (loading) loading(done, total);
    };
  };
  // First, since a copy may lie in memory, which is then gone for all else.
  std::optional<StageCopy> copy;
  agree_on(endpoint, "copying to --stage-dir", [&] {
    if (choice.stage_dir.empty()) return;
    std::vector<const io::TensorInfo*> tensors;
    for (const auto& tensor : model::stage_tensors(*run.checkpoint, run.config, range)) {
      tensors.push_back(tensor.stored);
    }
    copy.emplace(*run.checkpoint, tensors, choice.stage_dir, report.threads, alive());
  });
  if (copy) run.stage_options.memory_bytes = load_memory(device, node_ranks);

  // Before the weights: a network that does not work is known in seconds, and what the links take
  // of a GPU's memory is gone when the KV cache is sized.
  LinkReport links =
      connect_links(endpoint, device, 1, run.options.max_step_tokens * activation_row_bytes(run));
  const SlotChoice chosen = choose_slots(endpoint, run, device, choice, cut, layout);
  run.options.slots = run.stage_options.slots = chosen.slots;
  agree_on(endpoint, "making buffers for the links", [&] {
    if (endpoint.previous) endpoint.previous->make_room(chosen.slots);
    if (endpoint.next) endpoint.next->make_room(chosen.slots);
  });

  std::unique_ptr<model::Stage> stage;
  agree_on(endpoint, "loading weights", [&] {
    if (rehearsed) {
      stage =
          model::make_virtual_stage(run.config, range, run.stage_options, choice.machine->device);
      return;
    }
    const auto make = gpu ? model::make_cuda_stage : model::make_cpu_stage;
    const auto load = [&](const io::CheckpointReader& from) {
      stage = make(from, run.config, range, run.stage_options, alive());
    };
    if (copy) {
      copy->load(load);
    } else {
      load(*run.checkpoint);
    }
  });
  report.gpu = gpu ? device.gpu.name : "";
  report.gpu_uuid = gpu ? device.gpu.uuid : "";
  report.gpu_memory_bytes = gpu ? device.gpu.memory_bytes : 0;
  report.load_seconds = stage->load_report().seconds;
  report.weight_bytes = stage->weight_bytes();
  report.bytes_loaded = stage->load_report().bytes_read;
  report.bytes_read = run.checkpoint->bytes_read();
  if (copy) {
    report.bytes_read += copy->bytes_copied();
    report.copy = copy->note();
    report.warning = copy->warning();
  }

  StageSetup setup{std::move(*run.checkpoint),
                   run.config,
                   run.stage_options.dtype,
                   run.stage_options.kv_dtype,
                   run.context_limit,
                   std::move(stage),
                   run.options,
                   cut.slowest(),  // it sets the pace
                   cut,
                   device,
                   std::move(links),
                   chosen.trip_seconds,
                   {},
                   {},
                   0,
                   rehearsed ? fmt::format("{} x {}", layout.ranks(), choice.machine->text) : ""};
  setup.warnings = setup.links.warnings;
  setup.warnings.insert(setup.warnings.end(), cut.warnings.begin(), cut.warnings.end());

  size_kv_cache(endpoint, setup, choice, placement, node_ranks);
  report.kv_bytes = setup.options.kv_blocks * setup.stage->kv_block_bytes();
  for (const std::string& text :
       endpoint.all().all_gather(json(report).dump(), "the layout", endpoint.watchdog)) {
    const StageReport& of_stage = setup.reports.emplace_back(json::parse(text).get<StageReport>());
    if (!of_stage.warning.empty()) {
      setup.warnings.push_back(
          fmt::format("rank {}, host {}: {}", of_stage.rank, of_stage.host, of_stage.warning));
    }
  }
  setup.load_seconds = std::chrono::duration<double>(steady_now() - begin).count();
  return setup;
}

}  // namespace penstock::jobs
