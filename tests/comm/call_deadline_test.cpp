#include "comm/call_deadline.hpp"

#include <gtest/gtest.h>

namespace penstock::comm {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

TEST(CallDeadline, LetsACallEndInTime) { const CallDeadline deadline("MPI_Finalize", hours(1)); }

TEST(CallDeadlineDeathTest, NamesTheCallThatDoesNotEnd) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const CallDeadline deadline("MPI_Finalize (rank 3, host n042)", seconds(1));
        std::this_thread::sleep_for(hours(1));
      },
      testing::ExitedWithCode(1), "MPI_Finalize \\(rank 3, host n042\\) has not ended for 1 s");
}

}  // namespace
}  // namespace penstock::comm
