#include "app/pipeline_options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <exception>
#include <limits>

#include "comm/mpi.hpp"

namespace penstock::app {
namespace {

// MPI's start shows no progress, and thousands of ranks take their time: what is patience elsewhere
// is too little there.
constexpr int kStartPatience = 5;

// More than any machine has use for, and few enough that buffers and threads of that number can be
// asked for.
constexpr std::int64_t kMostThreads = 1024;
constexpr std::int64_t kMostSlots = 1024;
constexpr std::int64_t kMostStepTokens = 1 << 20;
// Some heartbeats must fit; and a rank that is silent for a day will not come back.
constexpr std::int64_t kLeastWatchdogSeconds = 3;
constexpr std::int64_t kMostWatchdogSeconds = 86400;

std::uint32_t count(const po::variables_map& values, const char* name, std::int64_t least,
                    std::int64_t most = std::numeric_limits<std::int32_t>::max()) {
  const auto value = values[name].as<std::int64_t>();
  if (value < least || value > most) {
    throw jobs::UsageError(
        fmt::format("--{} {} is out of range: give {} to {}", name, value, least, most));
  }
  return static_cast<std::uint32_t>(value);
}

}  // namespace

void add_pipeline_options(OptionParser& parser, Replicas replicas) {
  auto layout = parser.group("Layout");
  layout("stages", po::value<std::int64_t>()->default_value(0, "auto"),
         "pipeline stages: one a rank under mpirun or srun; any number of threads in one process");
  if (replicas == Replicas::any) {
    layout("replicas", po::value<std::int64_t>()->default_value(0, "auto"),
           "copies of the model that share the records, each a pipeline of --stages consecutive "
           "ranks; "
           "(auto: ranks / --stages, 1 if neither is given)");
  }
  layout("layers", po::value<std::string>()->value_name("N,N,..."),
         "layers of each stage (default: cut so that the slowest stage is as fast as it can be, by "
         "what bench --calibrate measured, else by weights and arithmetic)");
  layout("link", po::value<std::string>()->default_value("auto"),
         "how activations travel: local between threads of one process, mpi between ranks (between "
         "GPUs by way of host memory), nccl between GPUs, auto");
  layout("device", po::value<std::string>()->default_value("auto"),
         "cpu, cuda (a GPU for each rank), virtual (a rehearsal: nothing is computed, answers are "
         "made up, times are those of --virtual), auto: GPUs where there are some");
  layout("virtual", po::value<std::string>()->value_name("SPEC"),
         ("what --device virtual stands for: DEVICE, DEVICE,LINK or DEVICE,LINK:N,LINK with the "
          "first link in nodes of N, or a file.json (jobs/README.md); devices: " +
          fmt::format("{}; links: {}", fmt::join(model::device_model_names(), ", "),
                      fmt::join(jobs::link_model_names(), ", ")))
             .c_str());
  layout("virtual-realtime", flag(),
         "take the time that a rehearsal is about, instead of counting it");
  layout("threads", po::value<std::int64_t>()->default_value(0, "auto"),
         "threads of each stage (auto: the cores this rank may use)");
  layout("watchdog-seconds",
         po::value<std::int64_t>()->default_value(comm::kDefaultWatchdog.count())->value_name("N"),
         "end the run when a rank is silent, or none makes progress, for so long");
  layout("stage-dir", po::value<std::string>()->value_name("DIR"),
         "copy each stage's part of the checkpoint to DIR on its node first, and find it there the "
         "next time; for jobs that are started again on the same nodes (old copies are yours to "
         "remove)");
  auto numbers = parser.group("Numbers and memory");
  numbers("dtype", po::value<std::string>()->default_value("auto"),
          "of weights and activations: f32, bf16, on GPUs f16 (auto: the checkpoint's, where the "
          "device "
          "has it, else f32)");
  numbers("kv-dtype", po::value<std::string>()->default_value("auto"),
          "of the KV cache: f32, bf16, on GPUs f16 (auto: as --dtype)");
  numbers(
      "kv-memory", po::value<std::string>()->default_value("auto")->value_name("SIZE"),
      "KV cache of each rank, for example 4G (auto: up to half of the free memory, on GPUs all)");
  numbers("max-context", po::value<std::int64_t>()->default_value(0, "the model's"),
          "tokens of a prompt and its answer together");
  numbers("max-step-tokens", po::value<std::int64_t>()->default_value(0, "auto"),
          "tokens computed in one step (auto: 512, on GPUs 2048)");
  numbers(
      "slots", po::value<std::int64_t>()->default_value(0, "auto"),
      "micro-batches in flight (auto: 1 for one stage, else one for each and as many more as the "
      "links need, which is measured at the start)");
}

jobs::PipelineChoice pipeline_choice(const po::variables_map& values) {
  jobs::PipelineChoice choice;
  choice.checkpoint = values["CKPT"].as<std::string>();
  if (values.count("stage-dir") > 0) {
    choice.stage_dir = values["stage-dir"].as<std::string>();
    if (choice.stage_dir.empty()) {
      throw jobs::UsageError("--stage-dir is empty: give a folder, or leave it out");
    }
  }
  const auto link = values["link"].as<std::string>();
  if (link == "mpi") {
    choice.link = jobs::LinkKind::mpi;
  } else if (link == "local") {
    choice.link = jobs::LinkKind::local;
  } else if (link == "nccl") {
    choice.link = jobs::LinkKind::nccl;
  } else if (link != "auto") {
    throw jobs::UsageError(fmt::format("--link '{}' is not known: auto, local, mpi, nccl", link));
  }
  const auto device = values["device"].as<std::string>();
  if (device == "cpu") {
    choice.device = jobs::DeviceKind::cpu;
  } else if (device == "cuda") {
    choice.device = jobs::DeviceKind::cuda;
  } else if (device == "virtual") {
    choice.device = jobs::DeviceKind::virtual_device;
  } else if (device != "auto") {
    throw jobs::UsageError(
        fmt::format("--device '{}' is not known: auto, cpu, cuda, virtual", device));
  }
  if (values.count("layers") > 0) {
    for (const std::int64_t layers : parse_counts("--layers", values["layers"].as<std::string>())) {
      choice.layers.push_back(layers);
    }
  }
  if (const auto spec = given<std::string>(values, "virtual")) {
    choice.machine = jobs::parse_virtual_machine(*spec);
  }
  choice.realtime = is_on(values, "virtual-realtime");
  choice.stages = static_cast<int>(count(values, "stages", 0));
  choice.replicas =
      values.count("replicas") == 0 ? 1 : static_cast<int>(count(values, "replicas", 0));
  choice.threads = static_cast<int>(count(values, "threads", 0, kMostThreads));
  choice.dtype = parse_dtype_option("--dtype", values["dtype"].as<std::string>());
  choice.kv_dtype = parse_dtype_option("--kv-dtype", values["kv-dtype"].as<std::string>());
  choice.watchdog = std::chrono::seconds(
      count(values, "watchdog-seconds", kLeastWatchdogSeconds, kMostWatchdogSeconds));
  choice.slots = count(values, "slots", 0, kMostSlots);
  // "auto" is no value of its own, so that 0 can be refused.
  choice.max_step_tokens = values["max-step-tokens"].defaulted()
                               ? 0
                               : count(values, "max-step-tokens", 1, kMostStepTokens);
  choice.max_context = count(values, "max-context", 0);
  const auto memory = values["kv-memory"].as<std::string>();
  if (memory != "auto") choice.kv_memory = parse_bytes("--kv-memory", memory);
  jobs::check_choice(choice);
  return choice;
}

bool read_on_all_ranks(Invocation& invocation, const jobs::PipelineChoice& choice,
                       const std::function<bool()>& read) {
  if (asks_for_help(invocation.arguments)) return read();  // needs no ranks
  std::exception_ptr wrong;
  try {
    read();
  } catch (...) {
    wrong = std::current_exception();
  }
  const comm::World& world =
      invocation.world->emplace(invocation.argc, invocation.argv, kStartPatience * choice.watchdog);
  bool ok = true;
  jobs::Layout layout;
  std::string text;
  try {
    if (wrong) std::rethrow_exception(wrong);
    // Ranks must agree that there is one.
    layout = jobs::choose_layout(world, choice.link, choice.stages, choice.replicas);
    jobs::check_device(choice.device, choice.link, layout);
  } catch (const std::exception& e) {
    ok = false;
    text = e.what();
    // What rank 0 refuses, all do as a rule.
    if (world.rank() > 0) text += fmt::format(" (rank {}, host {})", world.rank(), world.host());
  }
  const comm::Endpoint endpoint = comm::mpi_endpoint(world);
  endpoint.control->agree(ok, text, "reading the options", choice.watchdog);
  // Ranks that differ here would not find each other.
  const auto layouts = endpoint.control->all_gather(
      fmt::format("{} replicas of {} stages", layout.replicas, layout.stages),
      "comparing --replicas and --stages", choice.watchdog);
  for (int rank = 0; rank < world.size(); ++rank) {
    const std::string& theirs = layouts[static_cast<std::size_t>(rank)];
    if (theirs == layouts[0]) continue;
    throw jobs::UsageError(
        fmt::format("--replicas and --stages mean {} on rank 0, but {} on rank "
                    "{}: give all ranks the same",
                    layouts[0], theirs, rank));
  }
  return true;
}

}  // namespace penstock::app
