#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <thread>

#include "app/commands.hpp"
#include "app/dataset_options.hpp"
#include "app/options.hpp"
#include "io/checkpoint.hpp"
#include "io/output_file.hpp"
#include "jobs/dataset_tokens.hpp"
#include "jobs/job_clock.hpp"
#include "jobs/launch.hpp"
#include "jobs/plan.hpp"
#include "jobs/plan_report.hpp"
#include "jobs/request_tools.hpp"
#include "jobs/slurm_script.hpp"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostCount = UINT32_MAX;

// A number from 1 on; 0: not given.
std::uint64_t count(const po::variables_map& values, const char* name,
                    std::uint64_t most = kMostCount) {
  const auto value = parse_unsigned(values, name);
  if (!value) return 0;
  if (*value == 0 || *value > most) {
    throw jobs::UsageError(
        fmt::format("--{} {} is out of range: give 1 to {}", name, *value, most));
  }
  return *value;
}
std::uint32_t small_count(const po::variables_map& values, const char* name,
                          std::uint64_t most = kMostCount) {
  return static_cast<std::uint32_t>(count(values, name, most));
}

void add_options(OptionParser& parser) {
  auto records = parser.group("Records");
  add_dataset_options(records);
  records("sample", po::value<std::string>()->default_value("20000")->value_name("N"),
          "read and tokenize so many records of D at most, spread evenly over it");
  records("prompt", po::value<std::string>()->value_name("N"),
          "instead of D: tokens of each prompt, with --generate and --records");
  records("records", po::value<std::string>()->value_name("N"), "how many records there are");
  records("generate", po::value<std::string>()->value_name("N"),
          "tokens that an answer is expected to have (default, with D: as many as it may have)");
  auto machine = parser.group("Machine and layout");
  machine("machine", po::value<std::string>()->value_name("SPEC"),
          "devices and links, as --virtual of run has them: h100-sxm, h100-sxm,ndr, "
          "h100-sxm,nvlink:8,ndr or a file.json (memory is reckoned as a GPU's)");
  machine("devices", po::value<std::string>()->value_name("N"),
          "at most (default: four times as many as are needed)");
  machine("stages", po::value<std::string>()->value_name("N"), "only layouts of so many stages");
  machine("replicas", po::value<std::string>()->value_name("N"),
          "only layouts of so many pipelines side by side");
  machine("slots", po::value<std::string>()->value_name("N"), "as for run");
  machine("max-step-tokens", po::value<std::string>()->value_name("N"), "as for run");
  machine("dtype", po::value<std::string>()->default_value("auto"), "as for run");
  machine("kv-dtype", po::value<std::string>()->default_value("auto"), "as for run");
  machine("kv-memory", po::value<std::string>()->value_name("SIZE"), "as for run");
  auto output = parser.group("Output");
  output("json", flag(), "machine-readable");
  output("sbatch", po::value<std::string>()->value_name("FILE"),
         "write the Slurm job of the best layout");
  output("output", po::value<std::string>()->value_name("O"), "the job's answers");
  output(
      "scripts", po::value<std::string>()->value_name("DIR"),
      "the folder of penstock's job.sh and site.sh, which the job reads (default: as installed)");
  output("cpus-per-task", po::value<std::string>()->value_name("N"),
         "cores of each rank (default, where a rank has a GPU: 4)");
  output("max-time", po::value<std::string>()->value_name("T"),
         "the longest time limit of the partition; a job that takes longer requeues itself");
  output("sbatch-option", po::value<std::vector<std::string>>()->composing()->value_name("TEXT"),
         "a further #SBATCH line, say --partition=gpu; may be given several times");
  output("force", flag(), "replace FILE if it is there already");
}

// What the command line says about the job, but for the records.
jobs::PlanInput plan_input(const po::variables_map& values,
                           const io::CheckpointReader& checkpoint) {
  jobs::PlanInput input;
  input.config = model::from_attributes(checkpoint.header().config);
  const io::DType stored = checkpoint.header().dtype;
  const bool kept = stored == io::DType::bf16 || stored == io::DType::f16;
  input.dtype = parse_dtype_option("--dtype", values["dtype"].as<std::string>())
                    .value_or(kept ? stored : io::DType::f32);
  input.kv_dtype =
      parse_dtype_option("--kv-dtype", values["kv-dtype"].as<std::string>()).value_or(input.dtype);
  const auto machine = given<std::string>(values, "machine");
  if (!machine) {
    throw jobs::UsageError("--machine SPEC is missing, for example --machine h100-sxm");
  }
  input.machine = jobs::parse_virtual_machine(*machine);
  input.devices = small_count(values, "devices", 1 << 20);
  input.stages = small_count(values, "stages", static_cast<std::uint64_t>(input.config.num_layers));
  input.replicas = small_count(values, "replicas", 1 << 20);
  input.slots = small_count(values, "slots", 1024);
  input.max_step_tokens = small_count(values, "max-step-tokens", 1 << 20);
  if (const auto memory = given<std::string>(values, "kv-memory")) {
    input.kv_memory = parse_bytes("--kv-memory", *memory);
  }
  input.context_limit = context_option(values, input.config);
  return input;
}

void take_given_lengths(const po::variables_map& values, jobs::PlanInput& input,
                        jobs::PlanSource& source) {
  const std::uint32_t prompt = small_count(values, "prompt");
  const std::uint32_t answer = small_count(values, "generate");
  input.records = count(values, "records", UINT64_MAX / 2);
  if (prompt == 0 || answer == 0 || input.records == 0) {
    throw jobs::UsageError("give --input D, or --prompt N, --generate N and --records N");
  }
  if (std::uint64_t{prompt} + answer > input.context_limit) {
    throw jobs::UsageError(fmt::format("--prompt {} and --generate {} exceed the context of {}",
                                       prompt, answer, input.context_limit));
  }
  const std::uint32_t most = std::max(answer, small_count(values, "max-tokens"));
  input.lengths = {{prompt, answer, most}};
  source.prompts = jobs::token_histogram({prompt});
  source.answers = jobs::token_histogram({answer});
  source.answers_are_longest = false;
}

void read_lengths(const po::variables_map& values, const io::CheckpointReader& checkpoint,
                  const jobs::DatasetTokensOptions& dataset, jobs::PlanInput& input,
                  jobs::PlanSource& source) {
  for (const char* const name : {"prompt", "records"}) {
    if (values.count(name) > 0) {
      throw jobs::UsageError(fmt::format("--{} is for a plan without --input", name));
    }
  }
  const jobs::RequestTools tools(checkpoint, values["CKPT"].as<std::string>(), input.config,
                                 max_tokens_option(values), input.context_limit);
  const jobs::DatasetTokens tokens = jobs::read_dataset_tokens(dataset, tools.builder());
  if (tokens.lengths.empty()) {
    throw jobs::UsageError(
        fmt::format("{}: none of the {} records read can be answered", dataset.path, tokens.read));
  }
  const std::uint32_t expected = small_count(values, "generate");
  std::vector<std::uint32_t> prompts;
  std::vector<std::uint32_t> answers;
  for (const jobs::RecordTokens& record : tokens.lengths) {
    const std::uint32_t answer =
        expected > 0 ? std::min(expected, record.max_tokens) : record.max_tokens;
    input.lengths.push_back({record.prompt, answer, record.max_tokens});
    prompts.push_back(record.prompt);
    answers.push_back(answer);
  }
  const double answerable =
      static_cast<double>(tokens.lengths.size()) / static_cast<double>(tokens.read);
  input.records =
      tokens.read == tokens.records
          ? tokens.lengths.size()
          : static_cast<std::uint64_t>(static_cast<double>(tokens.records) * answerable);
  source.input = dataset.path;
  source.records_read = tokens.read;
  source.records_failed = tokens.failed;
  source.prompts = jobs::token_histogram(std::move(prompts));
  source.answers = jobs::token_histogram(std::move(answers));
  source.answers_are_longest = expected == 0;
}

std::string scripts_folder(const po::variables_map& values) {
  const auto given_folder = given<std::string>(values, "scripts");
  const fs::path folder =
      given_folder ? fs::path(*given_folder)
                   : fs::read_symlink("/proc/self/exe").parent_path() / "../share/penstock/slurm";
  if (!fs::exists(folder / "job.sh")) {
    throw jobs::UsageError(
        fmt::format("{} holds no job.sh: give --scripts DIR, the folder of "
                    "penstock's Slurm scripts (jobs/slurm in its source)",
                    folder.lexically_normal().string()));
  }
  return fs::canonical(folder).string();
}

// The options that the job is to have as the plan has them.
std::vector<std::string> run_arguments(const po::variables_map& values, const jobs::PlanRow& row) {
  std::vector<std::string> arguments = {"--stages", std::to_string(row.stages())};
  if (row.replicas > 1) {
    arguments.insert(arguments.end(), {"--replicas", std::to_string(row.replicas)});
  }
  // A run without them would choose for itself, by other rules.
  arguments.insert(arguments.end(), {"--slots", std::to_string(row.size.slots), "--max-step-tokens",
                                     std::to_string(row.size.max_step_tokens)});
  if (values.count("input") == 0 && values.count("max-tokens") == 0) {  // the lengths were given
    arguments.insert(arguments.end(),
                     {"--max-tokens", std::to_string(small_count(values, "generate"))});
  }
  for (const char* const name :
       {"input-format", "limit", "max-tokens", "max-context", "dtype", "kv-dtype", "kv-memory"}) {
    if (values.count(name) == 0 || values[name].defaulted()) continue;
    arguments.insert(arguments.end(), {std::string("--") + name, values[name].as<std::string>()});
  }
  return arguments;
}

jobs::SlurmJob slurm_job(const po::variables_map& values, const jobs::PlanInput& input) {
  jobs::SlurmJob job;
  job.scripts = scripts_folder(values);
  job.checkpoint = fs::absolute(values["CKPT"].as<std::string>()).string();
  const auto in = given<std::string>(values, "input");
  const auto out = given<std::string>(values, "output");
  if (in) job.input = fs::absolute(*in).string();
  if (out) job.output = fs::absolute(*out).string();
  job.gpus = input.machine.gpus;
  job.ranks_per_node = static_cast<std::uint32_t>(input.machine.devices_per_node);
  job.cpus_per_rank = small_count(values, "cpus-per-task", 1 << 16);
  if (job.cpus_per_rank == 0) {
    if (!job.gpus) {
      throw jobs::UsageError("--sbatch for ranks that compute on CPUs needs --cpus-per-task N");
    }
    job.cpus_per_rank = 4;
  }
  if (const auto time = given<std::string>(values, "max-time")) {
    try {
      job.most_seconds = std::chrono::duration<double>(jobs::parse_duration(*time)).count();
    } catch (const std::invalid_argument& error) {
      throw jobs::UsageError(fmt::format("--max-time {}", error.what()));
    }
    if (job.most_seconds < 60) throw jobs::UsageError("--max-time: give a minute or more");
  }
  job.options =
      given<std::vector<std::string>>(values, "sbatch-option").value_or(std::vector<std::string>());
  for (const std::string& option : job.options) {
    if (!option.starts_with('-') || option.find_first_of("\r\n") != std::string::npos) {
      throw jobs::UsageError(
          fmt::format("--sbatch-option '{}': give one option of sbatch, --partition=gpu", option));
    }
  }
  return job;
}

}  // namespace

int plan_command(Invocation& invocation) {
  OptionParser parser(
      "penstock plan CKPT --machine SPEC [--input D] [options]",
      "Tells, before a GPU hour is spent, how many stages and replicas a job should have, what "
      "each\n"
      "rank's memory is used for, and how long it will take: the run's own scheduler is replayed "
      "for\n"
      "some layouts. Needs the checkpoint's header only (synth --no-data is enough).\n",
      {"CKPT"});
  add_options(parser);
  po::variables_map values;
  if (!parser.parse(invocation.arguments, values)) return 0;

  const auto path = values["CKPT"].as<std::string>();
  const io::CheckpointReader checkpoint(path);
  jobs::PlanInput input = plan_input(values, checkpoint);
  const auto dataset = dataset_options(values);
  std::string script;
  jobs::SlurmJob job;
  if (values.count("sbatch") > 0) {
    refuse_same_file(path, values["sbatch"].as<std::string>());
    if (dataset) refuse_same_file(dataset->path, values["sbatch"].as<std::string>());
    script = destination(values, "sbatch");
    job = slurm_job(values, input);
  }

  jobs::PlanSource source;
  source.version = version();
  source.checkpoint = path;
  source.model = checkpoint.header().source;
  source.parameters = static_cast<std::uint64_t>(model::parameter_count(input.config));
  if (dataset) {
    jobs::DatasetTokensOptions sampled = *dataset;
    sampled.most = count(values, "sample", UINT64_MAX / 2);
    read_lengths(values, checkpoint, sampled, input, source);
  } else {
    take_given_lengths(values, input, source);
  }

  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const jobs::Plan plan = jobs::make_plan(input, threads);
  std::cout << (is_on(values, "json")
                    ? jobs::to_json(input, plan, source)
                              .dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
                          "\n"
                    : jobs::format_plan(input, plan, source));
  if (script.empty()) return 0;

  const jobs::PlanRow& best = plan.rows[plan.best];
  job.about = fmt::format("Made by {} plan: {} replica(s) of {} stages", version(), best.replicas,
                          best.stages());
  job.ranks = best.devices();
  job.seconds = best.prediction.seconds;
  job.arguments = run_arguments(values, best);
  io::OutputFile file(script);
  file.append(jobs::slurm_script(job));
  file.commit();
  if (!is_on(values, "json")) {
    std::cout << fmt::format("\n{} is its job: sbatch {}\n", script, jobs::shell_word(script));
  }
  return 0;
}

}  // namespace penstock::app
