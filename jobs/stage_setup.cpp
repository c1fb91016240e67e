#include "jobs/stage_setup.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "comm/topology.hpp"
#include "io/error.hpp"
#include "jobs/stage_context.hpp"
#include "model/error.hpp"
#include "model/host_memory.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

// Reading the weights of a stage may take this long on a busy file system.
constexpr std::chrono::minutes kLoadTimeout{60};
// Tokens of a sequence that the default cache has room for.
constexpr std::uint64_t kUsualContext = 2048;

json to_json(const StageReport& report) {
  return {{"rank", report.rank},
          {"host", report.host},
          {"threads", report.threads},
          {"stage", report.stage},
          {"begin", report.layer_begin},
          {"end", report.layer_end},
          {"weights", report.weight_bytes},
          {"kv", report.kv_bytes},
          {"read", report.bytes_read}};
}

StageReport report_from(const json& j) {
  StageReport report;
  report.rank = j.at("rank");
  report.host = j.at("host");
  report.threads = j.at("threads");
  report.stage = j.at("stage");
  report.layer_begin = j.at("begin");
  report.layer_end = j.at("end");
  report.weight_bytes = j.at("weights");
  report.kv_bytes = j.at("kv");
  report.bytes_read = j.at("read");
  return report;
}

io::DType compute_dtype(const PipelineChoice& choice, io::DType stored) {
  // f16 has more precision than bf16, so what is not asked for is not thrown away.
  const io::DType dtype =
      choice.dtype.value_or(stored == io::DType::bf16 ? io::DType::bf16 : io::DType::f32);
  if (dtype == io::DType::f16) throw UsageError("--dtype f16 needs a GPU; use bf16 or f32");
  return dtype;
}

// What each of a node's ranks may still take. All must ask before any of them takes it.
std::uint64_t memory_share(int node_ranks) {
  return model::available_memory_bytes() / static_cast<std::uint64_t>(node_ranks);
}

// KV blocks that this stage has memory for.
std::uint64_t affordable_blocks(const StageSetup& setup, const PipelineChoice& choice,
                                int node_ranks) {
  const std::uint64_t share = memory_share(node_ranks);
  const std::uint64_t block_bytes = setup.stage->kv_block_bytes();
  if (choice.kv_memory > 0) {
    const std::uint64_t blocks = choice.kv_memory / block_bytes;
    if (blocks == 0) {
      throw UsageError(fmt::format("--kv-memory {} holds no KV block of {}: give more",
                                   format_bytes(choice.kv_memory), format_bytes(block_bytes)));
    }
    if (blocks * block_bytes > share) {
      throw UsageError(
          fmt::format("--kv-memory {} is more than the {} that each of the {} ranks on this node "
                      "can still have: give less, or start fewer ranks on a node",
                      format_bytes(choice.kv_memory), format_bytes(share), node_ranks));
    }
    return blocks;
  }
  const std::uint64_t sequences = std::uint64_t{setup.options.slots} * setup.options.max_sequences;
  const std::uint64_t tokens = std::min<std::uint64_t>(setup.context_limit, kUsualContext);
  const std::uint64_t useful =
      std::max(sequences * tokens, std::uint64_t{setup.context_limit}) / model::kKvBlockTokens + 1;
  return std::clamp<std::uint64_t>(share / 2 / block_bytes, 1, useful);
}

// A model for the balance of steps, where only ratios count; measured limits belong to bench.
constexpr model::MachineLimits kTypicalCore{100e9, 10e9};

}  // namespace

std::uint32_t context_limit(const model::ModelConfig& config, const PipelineChoice& choice) {
  const auto limit = static_cast<std::uint32_t>(config.max_position);
  return choice.max_context == 0 ? limit : std::min(limit, choice.max_context);
}

void agree_on(comm::Endpoint& endpoint, std::string_view what, const std::function<void()>& body) {
  bool ok = true;
  std::string text;
  try {
    body();
  } catch (const std::exception& e) {
    ok = false;
    text = endpoint.control->size() == 1
               ? std::string(e.what())
               : fmt::format("{} (stage {}, {})", e.what(), endpoint.control->member(),
                             endpoint.control->describe(endpoint.control->member()));
  }
  endpoint.control->agree(ok, text, what, kLoadTimeout);
}

// Option files and copies of the checkpoint may differ from host to host.
void agree_on_equal(comm::Endpoint& endpoint, const nlohmann::ordered_json& mine) {
  std::vector<json> all;
  for (const std::string& text :
       endpoint.control->all_gather(mine.dump(), "comparing the options", kLoadTimeout)) {
    all.push_back(json::parse(text));
  }
  agree_on(endpoint, "comparing the options", [&] {
    for (const auto& [name, value] : mine.items()) {
      if (value == all[0].at(name)) continue;
      throw UsageError(fmt::format("{} is {} here, but {} on stage 0: give all ranks the same",
                                   name, value.dump(), all[0].at(name).dump()));
    }
  });
}

StageSetup set_up_stage(comm::Endpoint& endpoint, const comm::World& world, const Layout& layout,
                        const PipelineChoice& choice, std::optional<io::CheckpointReader> opened,
                        const model::LoadProgress& loading) {
  const Ledger::Time begin = steady_now();
  const int member = endpoint.control->member();
  comm::CpuPlacement placement = comm::cpu_placement();
  int node_ranks = world.node_size();
  if (layout.link == LinkKind::local) {  // the stages share what this one process may use
    node_ranks = layout.stages;
    placement.node_cpus = std::min(placement.node_cpus, placement.allowed_cpus);
  }

  std::optional<io::CheckpointReader> checkpoint = std::move(opened);
  model::ModelConfig config;
  std::vector<model::StageRange> ranges;
  StageReport report;
  model::StageOptions stage_options;
  PipelineOptions options;
  std::uint32_t context_limit = 0;
  agree_on(endpoint, "opening the checkpoint", [&] {
    if (!checkpoint) {
      checkpoint.emplace(choice.checkpoint,
                         member == 0 ? io::CheckpointReader::Contents::all
                                     : io::CheckpointReader::Contents::without_tokenizer);
    }
    if (checkpoint->header().no_data) {
      throw io::FileError(choice.checkpoint, "holds shapes only (synth --no-data); it cannot run");
    }
    config = model::from_attributes(checkpoint->header().config);
    stage_options.memory_bytes = memory_share(node_ranks);
    stage_options.dtype = compute_dtype(choice, checkpoint->header().dtype);
    stage_options.kv_dtype = choice.kv_dtype.value_or(stage_options.dtype);
    if (stage_options.kv_dtype == io::DType::f16) {
      throw UsageError("--kv-dtype f16 needs a GPU; use bf16 or f32");
    }
    ranges = model::cut_stages(config, layout.stages, stage_options.dtype);
    context_limit = jobs::context_limit(config, choice);
    options.slots = choice.slots > 0     ? choice.slots
                    : layout.stages == 1 ? 1
                                         : static_cast<std::uint32_t>(layout.stages) + 1;
    options.max_step_tokens = choice.max_step_tokens;
    options.max_sequences = std::min(options.max_sequences, options.max_step_tokens);
  });

  agree_on_equal(endpoint, {{"the checkpoint's digest", checkpoint->digest()},
                            {"--dtype", io::to_string(stage_options.dtype)},
                            {"--kv-dtype", io::to_string(stage_options.kv_dtype)},
                            {"--slots", options.slots},
                            {"--max-step-tokens", options.max_step_tokens},
                            {"--max-context", context_limit}});

  const model::StageRange range = ranges[static_cast<std::size_t>(member)];
  report.rank = world.rank();
  report.host = placement.host;
  report.stage = member;
  report.layer_begin = range.begin;
  report.layer_end = range.end;
  report.threads =
      choice.threads > 0 ? choice.threads : comm::default_threads(placement, node_ranks);
  stage_options.threads = report.threads;
  stage_options.max_rows = options.max_step_tokens;
  stage_options.max_samples = options.max_sequences;

  std::unique_ptr<model::Stage> stage;
  agree_on(endpoint, "loading weights", [&] {
    stage = model::make_cpu_stage(*checkpoint, config, range, stage_options, loading);
  });
  report.weight_bytes = stage->weight_bytes();
  report.bytes_read = checkpoint->bytes_read();

  // The slowest stage sets the pace; all are made of the same parts, so the model of each is cheap.
  const auto cost_of_stage = [&](const model::StageRange& r) {
    return model::StepCost(config, r, stage_options.dtype, stage_options.kv_dtype, kTypicalCore);
  };
  const auto slowest = std::max_element(
      ranges.begin(), ranges.end(), [&](const model::StageRange& a, const model::StageRange& b) {
        const model::StepShape decode{64, 64, 64 * 512, 64 * 512};
        return cost_of_stage(a).seconds(decode) < cost_of_stage(b).seconds(decode);
      });
  StageSetup setup{std::move(*checkpoint),
                   config,
                   stage_options.dtype,
                   stage_options.kv_dtype,
                   context_limit,
                   std::move(stage),
                   options,
                   cost_of_stage(*slowest),
                   {},
                   {},
                   0};

  json mine;
  agree_on(endpoint, "sizing the KV cache", [&] {
    mine["blocks"] = affordable_blocks(setup, choice, node_ranks);
    mine["numeric_class"] = setup.stage->numeric_class();
    mine["warning"] = choice.threads > 0 ? "" : comm::binding_warning(placement, node_ranks);
  });
  std::uint64_t blocks = std::numeric_limits<std::uint32_t>::max();
  std::vector<std::string> classes;
  for (const std::string& text :
       endpoint.control->all_gather(mine.dump(), "sizing the KV cache", kLoadTimeout)) {
    const json theirs = json::parse(text);
    blocks = std::min(blocks, theirs.at("blocks").get<std::uint64_t>());
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
            "stages compute in different numeric classes ('{}' on stage 0, '{}' on stage {}), so "
            "answers would depend on the layout: use nodes of one kind, or set "
            "ONEDNN_MAX_CPU_ISA to what all of them have",
            classes[0], classes[i], i));
      }
    }
    setup.stage->allocate_kv(setup.options.kv_blocks);
  });
  report.kv_bytes = setup.options.kv_blocks * setup.stage->kv_block_bytes();
  for (const std::string& text :
       endpoint.control->all_gather(to_json(report).dump(), "the layout", kLoadTimeout)) {
    setup.reports.push_back(report_from(json::parse(text)));
  }
  setup.load_seconds = std::chrono::duration<double>(steady_now() - begin).count();
  return setup;
}

}  // namespace penstock::jobs
