#include "app/plan_job.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <utility>
#include <vector>

#include "app/commands.hpp"
#include "jobs/job_clock.hpp"
#include "jobs/launch.hpp"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;

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
std::vector<std::string> run_arguments(const po::variables_map& values, const jobs::PlanRow& row,
                                       bool gpus) {
  std::vector<std::string> arguments = jobs::layout_arguments(row);
  if (gpus) arguments.insert(arguments.end(), {"--device", "cuda"});
  if (values.count("input") == 0 && values.count("max-tokens") == 0) {  // the lengths were given
    arguments.insert(arguments.end(),
                     {"--max-tokens", std::to_string(count_option(values, "generate"))});
  }
  for (const char* const name : {"input-format", "limit", "max-tokens", "max-context", "dtype",
                                 "kv-dtype", "kv-memory", "slots"}) {
    if (values.count(name) == 0 || values[name].defaulted()) continue;
    arguments.insert(arguments.end(), {std::string("--") + name, values[name].as<std::string>()});
  }
  return arguments;
}

}  // namespace

void add_job_options(po::options_description_easy_init& group) {
  group("sbatch", po::value<std::string>()->value_name("FILE"),
        "write the Slurm job of the best layout");
  group("output", po::value<std::string>()->value_name("O"), "the job's answers");
  group("scripts", po::value<std::string>()->value_name("DIR"),
        "the folder of penstock's job.sh and site.sh, which the job reads (default: as installed)");
  group("cpus-per-task", po::value<std::string>()->value_name("N"),
        "cores of each rank (default, where a rank has a GPU: 4)");
  group("max-time", po::value<std::string>()->value_name("T"),
        "the longest time limit of the partition; a job that takes longer requeues itself");
  group("sbatch-option", po::value<std::vector<std::string>>()->composing()->value_name("TEXT"),
        "a further #SBATCH line, say --partition=gpu; may be given several times");
  group("force", flag(), "replace FILE if it is there already");
}

jobs::SlurmJob slurm_job(const po::variables_map& values, const jobs::PlanInput& input) {
  jobs::SlurmJob job;
  job.scripts = scripts_folder(values);
  job.checkpoint = fs::absolute(values["CKPT"].as<std::string>()).string();
  const auto in = given<std::string>(values, "input");
  const auto out = given<std::string>(values, "output");
  if (in) job.input = fs::absolute(*in).string();
  if (out) job.output = fs::absolute(*out).string();
  if (in && out) refuse_same_file(*in, *out);
  job.gpus = input.machine.gpus;
  job.ranks_per_node = static_cast<std::uint32_t>(input.machine.devices_per_node);
  job.cpus_per_rank = count_option(values, "cpus-per-task", 1 << 16);
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

std::string script_of(jobs::SlurmJob job, const po::variables_map& values,
                      const jobs::PlanRow& row) {
  job.about = fmt::format("Made by {} plan: {} replica(s) of {} stages", version(), row.replicas,
                          row.stages());
  job.ranks = row.devices();
  job.seconds = row.prediction.seconds;
  job.arguments = run_arguments(values, row, job.gpus);
  return jobs::slurm_script(job);
}

}  // namespace penstock::app
