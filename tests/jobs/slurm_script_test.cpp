#include "jobs/slurm_script.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <limits>
#include <memory>

#include "jobs/launch.hpp"

namespace penstock::jobs {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

std::string shell(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string out;
  std::array<char, 256> buffer{};
  while (const std::size_t n = fread(buffer.data(), 1, buffer.size(), pipe.get())) {
    out.append(buffer.data(), n);
  }
  return out;
}

SlurmJob job() {
  SlurmJob job;
  job.about = "a plan";
  job.scripts = "/opt/penstock/slurm";
  job.checkpoint = "/models/llama.h5";
  job.input = "/data/in.jsonl";
  job.output = "/data/it's out.jsonl";
  job.ranks = 12;
  job.ranks_per_node = 8;
  job.cpus_per_rank = 4;
  job.seconds = 3600;
  job.arguments = {"--stages", "6", "--replicas", "2"};
  return job;
}

TEST(SlurmScript, ResourcesAndArguments) {
  const std::string script = slurm_script(job());
  for (const char* const line :
       {"#SBATCH --nodes=2", "#SBATCH --ntasks=12", "#SBATCH --ntasks-per-node=8",
        "#SBATCH --cpus-per-task=4", "#SBATCH --gpus-per-node=8", "#SBATCH --time=01:35:00",
        "export CKPT=/models/llama.h5", "export OUTPUT='/data/it'\\''s out.jsonl'",
        ". /opt/penstock/slurm/job.sh"}) {
    EXPECT_THAT(script, HasSubstr("\n" + std::string(line) + "\n"));
  }
  EXPECT_THAT(script,
              EndsWith("\nrequeue_while_it_helps \"$OUTPUT\" --stages 6 --replicas 2 \"$@\"\n"));
}

TEST(SlurmScript, OneNodeWithoutGpus) {
  SlurmJob small = job();
  small.ranks = 3;
  small.gpus = false;
  small.input = "";
  small.options = {"--partition=batch"};
  const std::string script = slurm_script(small);
  EXPECT_THAT(script, AllOf(HasSubstr("--nodes=1\n"), HasSubstr("--ntasks-per-node=3\n"),
                            HasSubstr("\n#SBATCH --partition=batch\n"), Not(HasSubstr("gpus"))));
  EXPECT_THAT(script,
              HasSubstr("\n: \"${INPUT:?the dataset: JSONL, or text with a prompt a line}\"\n"));
}

TEST(SlurmScript, TimeLimits) {
  SlurmJob any = job();
  any.seconds = 1;  // 1.25 and 1200 seconds, in steps of 300
  EXPECT_EQ(time_limit_seconds(any), 1500);
  any.seconds = 100 * 3600;
  EXPECT_EQ(time_limit_seconds(any), 125 * 3600 + 1200);
  EXPECT_THAT(slurm_script(any), HasSubstr("--time=5-05:20:00\n"));
  any.most_seconds = 24 * 3600;
  EXPECT_THAT(slurm_script(any), HasSubstr("--time=1-00:00:00\n"));
}

TEST(SlurmScript, NoJobOfYears) {
  SlurmJob any = job();
  any.seconds = 366 * 86400.0;  // 457 days and a half with a quarter more, and 20 minutes
  EXPECT_THAT(slurm_script(any), HasSubstr("--time=457-12:20:00\n"));
  any.most_seconds = 24 * 3600;  // it would still need as long, in many parts
  for (const double seconds : {367 * 86400.0, 1e30, std::numeric_limits<double>::infinity()}) {
    any.seconds = seconds;
    EXPECT_THAT([&] { slurm_script(any); },
                ThrowsMessage<UsageError>(HasSubstr("more than a year")));
  }
}

TEST(SlurmScript, WordsSurviveTheShell) {
  for (const std::string word :
       {"plain", "", "it's", "a b\tc", "$HOME `x` \"y\" \\", "two\nlines"}) {
    EXPECT_EQ(shell("printf %s " + shell_word(word) + "; echo ."), word + ".\n");
  }
  EXPECT_EQ(shell("bash -n <<'END'\n" + slurm_script(job()) + "END\necho $?"), "0\n");
}

}  // namespace
}  // namespace penstock::jobs
