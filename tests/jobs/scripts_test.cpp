// What `cmake --install` leaves is enough for a job: the program and the scripts that start it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

  Finished run_script(const Arguments& variables, const Arguments& arguments = {}) const {
    const Arguments environment = {"/usr/bin/env",
                                   "PATH=" + prefix_ + "/bin:" + std::getenv("PATH"),
                                   "OMPI_ALLOW_RUN_AS_ROOT=1",
                                   "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                                   "OMPI_MCA_rmaps_base_oversubscribe=1",
                                   "OMPI_MCA_oob_tcp_if_include=lo",
                                   "OMPI_MCA_btl_tcp_if_include=lo"};
    return start(environment + variables + Arguments{prefix_ + "/share/penstock/mpirun/run.sh"} +
                 arguments);
  }

  Workplace workplace_;
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

}  // namespace
}  // namespace penstock::tests
