#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// The job script of a plan, which relies on job.sh and site.sh of jobs/slurm.
namespace penstock::jobs {

struct SlurmJob {
  std::string about;    // a line for a comment
  std::string scripts;  // the folder of job.sh
  std::string checkpoint;
  std::string input;   // empty, as the output: the environment must say
  std::string output;  // paths are absolute
  std::uint32_t ranks = 1;
  std::uint32_t ranks_per_node = 1;
  std::uint32_t cpus_per_rank = 1;
  bool gpus = true;                    // one for each rank
  double seconds = 0;                  // predicted
  double most_seconds = 0;             // that the partition lets jobs run; 0: not said
  std::vector<std::string> options;    // of sbatch: "--partition=gpu"
  std::vector<std::string> arguments;  // of penstock run
};

// The limit asked for: the predicted time and a quarter, twenty minutes for loading and merging,
// rounded up to five minutes, but at most `most_seconds`. The job requeues itself where that was
// not enough.
double time_limit_seconds(const SlurmJob& job);
// Throws UsageError for a job that is predicted to take more than a year.
std::string slurm_script(const SlurmJob& job);

// As one word of a shell's: 'it'\''s'. Plain words stay as they are.
std::string shell_word(std::string_view text);

}  // namespace penstock::jobs
