// tests/support/count_results.py: what CI takes for a failure.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using testing::HasSubstr;

const std::string kPassed = R"(<testcase name="io/A" status="run"><system-out/></testcase>)";
const std::string kFailed =
    R"(<testcase name="io/B" status="fail"><failure message=""/></testcase>)";

std::string skipped(const std::string& name, const std::string& reason) {
  return "<testcase name=\"" + name + "\" status=\"notrun\">" +
         R"(<skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/><system-out>x.cpp:7: Skipped)" +
         "\n" + reason + "\n</system-out></testcase>";
}

Finished count(const std::string& cases, const Arguments& options = {}) {
  const TemporaryFolder workplace;
  const std::string file = workplace / "results.xml";
  if (!cases.empty()) {
    workplace.write("results.xml", "<testsuite>" + cases + "</testsuite>");
  }
  return start(Arguments{"/usr/bin/env", "python3",
                         std::string(PENSTOCK_SOURCE_DIR) + "/tests/support/count_results.py"} +
               options + Arguments{file});
}

void expect(const Finished& finished, int code, const std::string& counts) {
  EXPECT_EQ(finished.code, code) << finished;
  EXPECT_TRUE(finished.out.ends_with("\n" + counts + "\n") || finished.out == counts + "\n")
      << finished;
}

TEST(CountResults, FailuresAndNoTests) {
  expect(count(kPassed), 0, "1 passed, 0 failed, 0 skipped");
  const Finished failed = count(kPassed + kFailed);
  expect(failed, 1, "1 passed, 1 failed, 0 skipped");
  EXPECT_THAT(failed.out, HasSubstr("failed: io/B"));
  expect(count(""), 1, "0 passed, 0 failed, 0 skipped");
  expect(count("<testsuite/>"), 1, "0 passed, 0 failed, 0 skipped");
}

TEST(CountResults, SkipsThatAreNotListedFailWhereTheyMust) {
  const std::string unknown = skipped("model/A", "PENSTOCK_TEST_PYTHON is not set: no Python");
  const std::string listed = skipped("model/B", "needs 1 GiB of free memory");
  expect(count(kPassed + unknown), 0, "1 passed, 0 failed, 1 skipped");
  const Finished strict = count(kPassed + unknown + listed, {"--strict"});
  expect(strict, 1, "1 passed, 0 failed, 2 skipped");
  EXPECT_THAT(strict.out, HasSubstr("skipped, which is a failure here: model/A: PENSTOCK_TEST"));
  EXPECT_THAT(strict.out, HasSubstr("skipped: model/B: needs 1 GiB"));
  expect(count(kPassed + listed, {"--strict"}), 0, "1 passed, 0 failed, 1 skipped");
  // The reason must be that test's.
  expect(count(skipped("io/B", "the sanitizer's own memory would be counted"), {"--strict"}), 1,
         "0 passed, 0 failed, 1 skipped");
}

}  // namespace
}  // namespace penstock::tests
