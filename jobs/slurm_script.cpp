#include "jobs/slurm_script.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "jobs/launch.hpp"
#include "jobs/report.hpp"

namespace penstock::jobs {
namespace {

constexpr double kMargin = 1.25;
constexpr double kLoadAndMergeSeconds = 20 * 60;
constexpr double kRoundToSeconds = 5 * 60;
// More than anybody waits for, in however many parts.
constexpr double kMostJobSeconds = 366.0 * 86400;

// "2-03:05:00"
std::string slurm_time(double seconds) {
  const auto minutes = static_cast<std::int64_t>(seconds / 60);
  const std::int64_t days = minutes / 1440;
  const std::string time = fmt::format("{:02}:{:02}:00", minutes / 60 % 24, minutes % 60);
  return days > 0 ? fmt::format("{}-{}", days, time) : time;
}

// A file that must be named, by the plan or by whoever submits the script.
std::string variable(std::string_view name, const std::string& value, std::string_view meaning) {
  return value.empty() ? fmt::format(": \"${{{}:?{}}}\"\n", name, meaning)
                       : fmt::format("export {}={}\n", name, shell_word(value));
}

}  // namespace

std::string shell_word(std::string_view text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string_view::npos) {
    return std::string(text);
  }
  std::string word = "'";
  for (const char c : text) {
    if (c == '\'') {
      word += "'\\''";
    } else {
      word += c;
    }
  }
  return word + "'";
}

double time_limit_seconds(const SlurmJob& job) {
  const double wanted = job.seconds * kMargin + kLoadAndMergeSeconds;
  const double rounded = std::ceil(wanted / kRoundToSeconds) * kRoundToSeconds;
  return job.most_seconds > 0 ? std::min(rounded, job.most_seconds) : rounded;
}

std::string slurm_script(const SlurmJob& job) {
  if (!(job.seconds <= kMostJobSeconds)) {
    throw UsageError(fmt::format(
        "a Slurm job of more than a year is not written, and this one would take {}: give it more "
        "--devices, or fewer records",
        format_duration(job.seconds)));
  }
  const std::uint32_t ranks_per_node = std::min(job.ranks, job.ranks_per_node);
  const std::uint32_t nodes = (job.ranks + ranks_per_node - 1) / ranks_per_node;
  std::string text = fmt::format("#!/bin/bash\n# {}\n#SBATCH --job-name=penstock\n", job.about);
  text += fmt::format("#SBATCH --nodes={}\n#SBATCH --ntasks={}\n#SBATCH --ntasks-per-node={}\n",
                      nodes, job.ranks, ranks_per_node);
  text += fmt::format("#SBATCH --cpus-per-task={}\n", job.cpus_per_rank);
  if (job.gpus) text += fmt::format("#SBATCH --gpus-per-node={}\n", ranks_per_node);
  text += fmt::format("#SBATCH --distribution=block\n#SBATCH --time={}\n",
                      slurm_time(time_limit_seconds(job)));
  text +=
      "#SBATCH --signal=B:USR1@120\n#SBATCH --requeue\n#SBATCH --open-mode=append\n"
      "#SBATCH --output=%x-%j.log\n";
  for (const std::string& option : job.options) text += fmt::format("#SBATCH {}\n", option);
  text += "set -eu\n";
  text += variable("CKPT", job.checkpoint, "the checkpoint, made by penstock convert");
  text += variable("INPUT", job.input, "the dataset: JSONL, or text with a prompt a line");
  text += variable("OUTPUT", job.output, "the file for the answers");
  text += fmt::format(". {}\n", shell_word(job.scripts + "/job.sh"));
  text += "\n# Arguments behind the script's name go to penstock run, too.\n";
  text += "requeue_while_it_helps \"$OUTPUT\"";
  for (const std::string& argument : job.arguments) text += " " + shell_word(argument);
  return text + " \"$@\"\n";
}

}  // namespace penstock::jobs
