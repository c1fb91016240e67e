// What `cmake --install` leaves is enough for a job: the program and the scripts that start it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using testing::HasSubstr;

class Scripts : public testing::Test {
 protected:
  void SetUp() override {
    const Finished installed =
        start({PENSTOCK_TEST_CMAKE, "--install", PENSTOCK_TEST_BUILD_FOLDER, "--prefix", prefix_});
    ASSERT_EQ(installed.code, 0) << installed;
  }

  Finished run_script(const Arguments& variables, const Arguments& arguments = {},
                      const std::string& script = "mpirun/run.sh") const {
    const Arguments environment = {"/usr/bin/env",
                                   "PATH=" + prefix_ + "/bin:" + std::getenv("PATH"),
                                   "OMPI_ALLOW_RUN_AS_ROOT=1",
                                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                                   "OMPI_MCA_rmaps_base_oversubscribe=1",
                                   "OMPI_MCA_oob_tcp_if_include=lo",
                                   "OMPI_MCA_btl_tcp_if_include=lo"};
    return start(environment + variables + Arguments{prefix_ + "/share/penstock/" + script} +
                 arguments);
  }

  TemporaryFolder workplace_;
  std::string prefix_ = workplace_ / "usr";
};

TEST_F(Scripts, MpirunStartsAJobOnAsManyRanksAsAsked) {
  const std::string output = workplace_ / "answers.jsonl";
  const Finished run = run_script(
      {"CKPT=" + kEmbeddedModel, "INPUT=" + workplace_.write("in.txt", "Mr. Darcy\nElizabeth\n"),
       "OUTPUT=" + output, "RANKS=3"},
      {"--max-tokens", "2", "--progress", "none"});
  EXPECT_EQ(run.code, 0) << run;
  EXPECT_EQ(read_rows(output).size(), 2U);
  EXPECT_THAT(run.err, HasSubstr("4 slots"));  // one more than stages
}

TEST_F(Scripts, MpirunSaysWhichVariableIsMissing) {
  const Finished run = run_script({"CKPT=" + kEmbeddedModel, "OUTPUT=nowhere.jsonl"});
  EXPECT_NE(run.code, 0);
  EXPECT_THAT(run.err, HasSubstr("INPUT: the dataset"));
}

// What Slurm's srun would be asked for.
TEST_F(Scripts, SlurmScriptStartsTheJobBySrun) {
  const std::string srun = workplace_.write("bin/srun", "#!/bin/sh\nprintf '[%s]\\n' \"$@\"\n");
  std::filesystem::permissions(srun, std::filesystem::perms::owner_all);
  const std::string path = "PATH=" + (workplace_ / "bin") + ":" + std::getenv("PATH");
  const Arguments variables{path, "CKPT=a model.h5", "INPUT=in.jsonl", "OUTPUT=out.jsonl"};
  const std::string script = "slurm/run.sbatch";
  const Finished run = run_script(variables + Arguments{"SLURM_CPUS_PER_TASK=32"},
                                  {"--stop", "two words", "--fresh"}, script);
  EXPECT_EQ(run.code, 0) << run;
  EXPECT_THAT(
      lines_of(run.out),
      testing::ElementsAre("[--kill-on-bad-exit=1]", "[--mpi=pmix]", "[--cpus-per-task=32]",
                           "[--cpu-bind=cores]", "[penstock]", "[run]", "[a model.h5]", "[--input]",
                           "[in.jsonl]", "[--output]", "[out.jsonl]", "[--progress]", "[lines]",
                           "[--stop]", "[two words]", "[--fresh]"));
  const Finished plain = run_script(
      variables + Arguments{"SLURM_CPUS_PER_TASK=", "PENSTOCK=/opt/penstock"}, {}, script);
  EXPECT_THAT(plain.out, HasSubstr("[--cpus-per-task=1]\n"));
  EXPECT_THAT(plain.out, HasSubstr("[/opt/penstock]\n"));

  const std::vector<std::pair<std::string, std::string>> needed = {
      {"CKPT", "the checkpoint"}, {"INPUT", "the dataset"}, {"OUTPUT", "the file for the answers"}};
  for (const auto& [name, meaning] : needed) {
    const Finished refused = run_script(variables + Arguments{name + "="}, {}, script);
    EXPECT_NE(refused.code, 0) << refused;
    EXPECT_EQ(refused.out, "");
    EXPECT_THAT(refused.err, HasSubstr(name + ": " + meaning));
  }
}

// By itself, as Slurm runs it when the array has ended.
TEST_F(Scripts, MergeJoinsOnlyPartsThatBelongTogether) {
  const std::string output = workplace_ / "out.jsonl";
  const auto run_part = [&](const std::string& part, const std::string& tokens) {
    const std::string input = workplace_.write("in.txt", "Mr. Darcy\nElizabeth\nJane\n");
    const Finished run =
        penstock({"run", kEmbeddedModel, "--input", input, "--part", part + "/2", "--output",
                  output + ".part-" + part + "-of-2", "--max-tokens", tokens, "--fresh"});
    EXPECT_EQ(run.code, 0) << run;
  };
  const auto merge = [&](const Arguments& more = {}) {
    return run_script(Arguments{"OUTPUT=" + output, "SLURM_JOB_ID=7"} + more, {},
                      "slurm/merge.sbatch");
  };
  for (const char* no_number : {"0", "abc", "-2"}) {
    const Finished refused = merge({std::string("PARTS=") + no_number});
    EXPECT_EQ(refused.code, 1) << refused;
    EXPECT_THAT(refused.err, HasSubstr("is no number of parts"));
  }
  run_part("1", "2");
  const Finished missing = merge();
  EXPECT_EQ(missing.code, 1) << missing;
  EXPECT_THAT(missing.err, HasSubstr("PARTS=2 sbatch --array=2 "));
  run_part("2", "3");
  const Finished differ = merge();
  EXPECT_EQ(differ.code, 1) << differ;
  EXPECT_THAT(differ.err, HasSubstr("different parameters"));
  EXPECT_FALSE(std::filesystem::exists(output));
  run_part("2", "2");
  const Finished joined = merge();
  EXPECT_EQ(joined.code, 0) << joined;
  EXPECT_EQ(read_rows(output).size(), 3U);
}

}  // namespace
}  // namespace penstock::tests
