#include "io/journal_scan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "io/error.hpp"
#include "tests/io/journal_support.hpp"

namespace penstock::io {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(RecordSetTest, HoldsRecordsOfARange) {
  RecordSet set(100, 200);
  EXPECT_EQ(set.size(), 0u);
  EXPECT_TRUE(set.insert(100));
  EXPECT_TRUE(set.insert(199));
  EXPECT_FALSE(set.insert(199));
  EXPECT_EQ(set.size(), 2u);
  EXPECT_TRUE(set.contains(100));
  EXPECT_TRUE(set.contains(199));
  EXPECT_FALSE(set.contains(150));
  EXPECT_FALSE(set.contains(0));
  EXPECT_FALSE(set.contains(99));
  EXPECT_FALSE(set.contains(200));
  EXPECT_FALSE(set.contains(UINT64_MAX));
  EXPECT_THROW(set.insert(99), std::out_of_range);
  EXPECT_THROW(set.insert(200), std::out_of_range);
  EXPECT_THROW(RecordSet(2, 1), std::invalid_argument);
  EXPECT_FALSE(RecordSet().contains(0));
  EXPECT_FALSE(RecordSet(5, 5).contains(5));
}

class JournalScanTest : public JournalTest {
 protected:
  std::string error_of(std::uint64_t first, std::uint64_t end) const {
    try {
      scan_journals({path("a")}, first, end);
    } catch (const FileError& error) {
      return error.what();
    }
    return "no error";
  }
};

TEST_F(JournalScanTest, FindsWhatIsFinishedAndWhatIsBegun) {
  write("a", line_of(12) + partial_line_of(11, {1}) + partial_line_of(10, {2}) +
                 partial_line_of(11, {1, 2}) + line_of(10, "first"));
  write("b", line_of(10, "second") + partial_line_of(10, {7}) + "rubbish\n" +
                 partial_line_of(14, {}) + line_of(13) + "{");
  std::vector<std::string> rows;
  const JournalScan scan = scan_journals({path("a"), path("b")}, 10, 15,
                                         [&](std::string_view row) { rows.emplace_back(row); });
  EXPECT_THAT(rows, ElementsAre(row_of(12), row_of(10, "first"), row_of(13)));
  EXPECT_EQ(scan.rows, 3u);
  EXPECT_EQ(scan.finished.size(), 3u);
  EXPECT_TRUE(scan.finished.contains(10));
  EXPECT_FALSE(scan.finished.contains(11));
  EXPECT_TRUE(scan.finished.contains(12));
  EXPECT_TRUE(scan.finished.contains(13));
  EXPECT_FALSE(scan.finished.contains(14));
  EXPECT_THAT(scan.partial,
              UnorderedElementsAre(Pair(11, ElementsAre(1, 2)), Pair(14, ElementsAre())));
  EXPECT_EQ(scan.duplicates, 1u);
  EXPECT_EQ(scan.damaged_lines, 2u);
}

TEST_F(JournalScanTest, TheLatestPartialRowCountsEvenIfItIsShorter) {
  write("a", partial_line_of(0, {1, 2, 3}) + partial_line_of(0, {1}));
  EXPECT_THAT(scan_journals({path("a")}, 0, 1).partial,
              UnorderedElementsAre(Pair(0, ElementsAre(1))));
}

TEST_F(JournalScanTest, OfSeveralJournalsTheLongestPartialRowCounts) {
  write("a", partial_line_of(0, {1, 2, 3}) + partial_line_of(1, {4}) + partial_line_of(2, {}));
  write("b", partial_line_of(0, {1}) + partial_line_of(1, {4, 5, 6}) + partial_line_of(1, {4, 5}));
  const auto expected = UnorderedElementsAre(Pair(0, ElementsAre(1, 2, 3)),
                                             Pair(1, ElementsAre(4, 5)), Pair(2, ElementsAre()));
  EXPECT_THAT(scan_journals({path("a"), path("b")}, 0, 3).partial, expected);
  EXPECT_THAT(scan_journals({path("b"), path("a")}, 0, 3).partial, expected);
}

TEST_F(JournalScanTest, NothingIsFine) {
  write("a", "");
  const JournalScan scan = scan_journals({path("a")}, 0, 1);
  EXPECT_EQ(scan.finished.size(), 0u);
  EXPECT_THAT(scan.partial, IsEmpty());
  EXPECT_EQ(scan_journals({}, 0, 0).rows, 0u);
}

TEST_F(JournalScanTest, JournalsOfOtherJobsAreRefused) {
  write("a", line_of(10) + line_of(11) + partial_line_of(12, {1}));
  EXPECT_EQ(error_of(10, 13), "no error");
  EXPECT_EQ(error_of(11, 13),
            path("a") +
                ": has a row of record 10 at byte 0, the records of this job are 11 to 12: "
                "it is the journal of another job");
  EXPECT_EQ(error_of(10, 12), path("a") + ": has a row of record 12 at byte " +
                                  std::to_string(2 * line_of(10).size()) +
                                  ", the records of this job are 10 to 11: it is the journal of "
                                  "another job");
  EXPECT_EQ(error_of(0, 0), path("a") +
                                ": has a row of record 10 at byte 0, the records of this "
                                "job are none: it is the journal of another job");
}

}  // namespace
}  // namespace penstock::io
