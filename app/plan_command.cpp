#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <thread>
#include <utility>

#include "app/commands.hpp"
#include "app/dataset_options.hpp"
#include "app/options.hpp"
#include "app/plan_job.hpp"
#include "app/plan_lengths.hpp"
#include "io/checkpoint.hpp"
#include "io/output_file.hpp"
#include "jobs/generation_params.hpp"
#include "jobs/launch.hpp"
#include "jobs/measured_times.hpp"
#include "jobs/plan.hpp"
#include "jobs/plan_report.hpp"
#include "model/text/tokenizer_files.hpp"

namespace penstock::app {
namespace {

void add_options(OptionParser& parser) {
  auto records = parser.group("Records");
  add_dataset_options(records);
  add_length_options(records);
  auto machine = parser.group("Machine and layout");
  machine("machine", po::value<std::string>()->value_name("SPEC"),
          "devices and links, as --virtual of run has them: h100-sxm, h100-sxm,ndr, "
          "h100-sxm,nvlink:8,ndr or a file.json (memory is reckoned as a GPU's)");
  machine("measured", flag(),
          "steps take what bench --calibrate measured (CKPT.calibration.json), not what --machine "
          "says, which is for memory and links then; tokens are greedy or drawn as the checkpoint "
          "has it");
  machine("measured-on", po::value<std::string>()->value_name("TEXT"),
          "the same, of the machine whose description contains TEXT");
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
  add_job_options(output);
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
  input.devices = count_option(values, "devices", 1 << 20);
  input.stages =
      count_option(values, "stages", static_cast<std::uint32_t>(input.config.num_layers));
  input.replicas = count_option(values, "replicas", 1 << 20);
  input.slots = count_option(values, "slots", 1024);
  input.max_step_tokens = count_option(values, "max-step-tokens", 1 << 20);
  if (const auto memory = given<std::string>(values, "kv-memory")) {
    input.kv_memory = parse_bytes("--kv-memory", *memory);
  }
  input.context_limit = context_option(values, input.config);
  return input;
}

// As a run without options does.
bool draws_tokens(const io::CheckpointReader& checkpoint, const model::ModelConfig& config) {
  const auto files = model::from_blobs(checkpoint.header().tokenizer);
  return jobs::default_params(files.generation_config, {}, config.vocab_size).sampling.temperature >
         0;
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
  const auto measured_on = given<std::string>(values, "measured-on");
  if (is_on(values, "measured") || measured_on) {
    jobs::MeasuredTimes times = jobs::measured_times(path, input, measured_on.value_or(""),
                                                     draws_tokens(checkpoint, input.config));
    input.measured = std::move(times.parts);
    source.measured = std::move(times.text);
  }
  read_lengths(values, checkpoint, dataset, input, source);

  const int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const jobs::Plan plan = jobs::make_plan(input, threads);
  std::cout << (is_on(values, "json")
                    ? jobs::to_json(input, plan, source)
                              .dump(2, ' ', false, nlohmann::json::error_handler_t::replace) +
                          "\n"
                    : jobs::format_plan(input, plan, source));
  if (script.empty()) return 0;

  const std::string text = script_of(job, values, plan.rows[plan.best]);
  io::OutputFile file(script);
  file.append(text);
  file.commit();
  if (!is_on(values, "json")) {
    std::cout << fmt::format("\n{} is its job: sbatch {}\n", script, jobs::shell_word(script));
  }
  return 0;
}

}  // namespace penstock::app
