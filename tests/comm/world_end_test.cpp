// How World ends a job, seen from outside: exit codes and words of mpirun.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

namespace penstock::comm {
namespace {

struct Ending {
  int code = -1;
  std::string output;
};

Ending run(const std::string& how) {
  // The time-out makes a hang a failure with mpirun's words.
  const std::string command =
      "MPIEXEC_TIMEOUT=60 " PENSTOCK_TEST_MPIRUN " 2 " PENSTOCK_TEST_WORLD_END " " + how + " 2>&1";
  std::FILE* pipe = popen(command.c_str(), "r");
  Ending ending;
  std::array<char, 4096> buffer{};
  while (std::fgets(buffer.data(), static_cast<int>(buffer.size()), pipe) != nullptr) {
    ending.output += buffer.data();
  }
  const int status = pclose(pipe);
  if (WIFEXITED(status)) ending.code = WEXITSTATUS(status);
  EXPECT_THAT(ending.output, testing::Not(testing::HasSubstr("time limit")));
  return ending;
}

TEST(WorldEnd, ExceptionThatUnwindsItEndsAllRanks) {
  const Ending ending = run("unwind");
  EXPECT_EQ(ending.code, 1) << ending.output;
  EXPECT_THAT(ending.output, testing::Not(testing::HasSubstr("caught too late")));
}

TEST(WorldEnd, AbortEndsAllRanksWithTheCode) { EXPECT_EQ(run("abort").code, 7); }

TEST(WorldEnd, HungRankIsNamedAndTheJobEnds) {
  const Ending ending = run("hang");
  EXPECT_EQ(ending.code, 3) << ending.output;
  EXPECT_THAT(ending.output,
              testing::ContainsRegex("the plan: no word from rank 1, host .+ for 0.3 s"));
}

TEST(WorldEnd, LastMessagesArriveThoughTheSenderLeaves) {
  const Ending ending = run("last-words");
  EXPECT_EQ(ending.code, 0) << ending.output;
  EXPECT_THAT(ending.output, testing::HasSubstr("10000000 bytes from rank 0"));
}

}  // namespace
}  // namespace penstock::comm
