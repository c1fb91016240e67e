// The main of the MPI tests: every rank runs every test. Failures are printed when they happen, by
// the rank that has them, and all ranks return the same code, so that one failure on one rank
// fails the program.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/mpi.hpp"

namespace penstock::support {
namespace {

const comm::World* the_world = nullptr;

// One write for each text, so that the lines of several ranks do not mix.
void print(const std::string& text) {
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t count = ::write(STDOUT_FILENO, text.data() + written, text.size() - written);
    if (count <= 0) return;
    written += static_cast<std::size_t>(count);
  }
}

// Takes the place of GoogleTest's printer. It never communicates: a failure is seen by one rank
// while the others are elsewhere.
class RankPrinter : public testing::EmptyTestEventListener {
 public:
  RankPrinter(int rank, int size) : rank_(rank), size_(size) {}

 private:
  static std::string name(const testing::TestInfo& test) {
    return std::string(test.test_suite_name()) + "." + test.name();
  }

  void OnTestStart(const testing::TestInfo& test) override {
    current_ = name(test);
    if (rank_ == 0) print("[ RUN      ] " + name(test) + "\n");
  }

  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (result.passed()) return;
    std::ostringstream place;
    if (result.file_name() != nullptr) {
      place << " " << result.file_name() << ":" << result.line_number();
    }
    std::istringstream message(result.message());
    std::string text;
    const std::string prefix = "[rank " + std::to_string(rank_) + "] ";
    text += prefix + (result.skipped() ? "skipped" : "FAILURE") + place.str() + " in " + current_ +
            "\n";
    for (std::string line; std::getline(message, line);) text += prefix + "  " + line + "\n";
    print(text);
  }

  void OnTestEnd(const testing::TestInfo& test) override {
    const testing::TestResult& result = *test.result();
    if (rank_ != 0) return;
    const char* outcome = result.Failed()    ? "[  FAILED  ] "
                          : result.Skipped() ? "[  SKIPPED ] "
                                             : "[       OK ] ";
    print(outcome + name(test) + " on rank 0 (" + std::to_string(result.elapsed_time()) + " ms)\n");
  }

  void OnTestProgramEnd(const testing::UnitTest& tests) override {
    current_ = "(no test)";
    if (rank_ == 0) {
      print("[==========] " + std::to_string(tests.test_to_run_count()) + " tests on " +
            std::to_string(size_) + " ranks\n");
    }
  }

  int rank_;
  int size_;
  std::string current_;  // GoogleTest must not be asked while it reports a failure
};

// Every rank's count of failed tests, printed by rank 0; the worst exit code of all ranks.
int reduce(const comm::World& world, int code) {
  const int mine[2] = {code, testing::UnitTest::GetInstance()->failed_test_count()};
  std::vector<int> all(2 * static_cast<std::size_t>(world.size()));
  PENSTOCK_MPI(MPI_Allgather(mine, 2, MPI_INT, all.data(), 2, MPI_INT, world.communicator()));
  int worst = 0;
  for (std::size_t i = 0; i < all.size(); i += 2) {
    if (all[i] != 0) worst = all[i];
    if (world.rank() == 0 && all[i] != 0) {
      print("[  FAILED  ] rank " + std::to_string(i / 2) + ": " + std::to_string(all[i + 1]) +
            " tests\n");
    }
  }
  return worst;
}

int run(int* argc, char*** argv) {
  const comm::World world(argc, argv);
  the_world = &world;
  try {
    testing::InitGoogleTest(argc, *argv);
    // One file of results, not one written by all ranks at once.
    if (world.rank() != 0) GTEST_FLAG_SET(output, "");
    testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new RankPrinter(world.rank(), world.size()));
    return reduce(world, RUN_ALL_TESTS());
  } catch (const std::exception& error) {
    print("[rank " + std::to_string(world.rank()) + "] " + error.what() + "\n");
    world.abort(EXIT_FAILURE);
  }
}

}  // namespace

const comm::World& world() { return *the_world; }

}  // namespace penstock::support

int main(int argc, char** argv) { return penstock::support::run(&argc, &argv); }
