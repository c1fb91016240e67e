#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "io/error.hpp"
#include "io/journal.hpp"
#include "tests/io/journal_support.hpp"

namespace penstock::io {
namespace {

using ::testing::HasSubstr;

class JournalMergeTest : public JournalTest {
 protected:
  MergeCounts merge(const std::vector<std::string>& journals, std::uint64_t first,
                    std::uint64_t end, const std::string& output = "out") const {
    std::vector<std::string> paths;
    for (const std::string& journal : journals) paths.push_back(path(journal));
    return merge_journals(paths, first, end, path(output), folder_);
  }
  std::string merge_error(const std::vector<std::string>& journals, std::uint64_t first,
                          std::uint64_t end, const std::string& output = "out") const {
    try {
      merge(journals, first, end, output);
    } catch (const FileError& error) {
      EXPECT_FALSE(std::filesystem::exists(path("out")));
      for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
        EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
      }
      return error.what();
    }
    return "merged";
  }
};

TEST_F(JournalMergeTest, PutsRowsInOrder) {
  write_rows("a", {2, 0});
  write_rows("b", {3, 1});
  const MergeCounts counts = merge({"a", "b"}, 0, 4);
  EXPECT_EQ(counts.rows, 4u);
  EXPECT_EQ(counts.duplicates, 0u);
  EXPECT_EQ(counts.damaged_lines, 0u);
  EXPECT_EQ(content("out"),
            row_of(0) + "\n" + row_of(1) + "\n" + row_of(2) + "\n" + row_of(3) + "\n");
  // Nothing else is left behind.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 3);
}

TEST_F(JournalMergeTest, TakesARangeOfRecords) {
  write_rows("a", {1002, 1000, 1001});
  EXPECT_EQ(merge({"a"}, 1000, 1003).rows, 3u);
  EXPECT_EQ(content("out"), row_of(1000) + "\n" + row_of(1001) + "\n" + row_of(1002) + "\n");
  std::filesystem::remove(path("out"));
  EXPECT_THAT(merge_error({"a"}, 1001, 1003), HasSubstr("has a row of record 1000 at byte"));
  EXPECT_THAT(merge_error({"a"}, 1000, 1002), HasSubstr("has a row of record 1002 at byte 0"));
  EXPECT_THAT(merge_error({"a"}, 999, 1003),
              HasSubstr("record 999 has no row (3 of 4 records have one)"));
  EXPECT_THROW(merge({"a"}, 2, 1), std::invalid_argument);
}

TEST_F(JournalMergeTest, TheFirstRowOfARecordIsTaken) {
  write_rows("a", {0, 1}, "first");
  write_rows("a", {1}, "second");
  write_rows("b", {1, 2}, "third");
  const MergeCounts counts = merge({"a", "b"}, 0, 3);
  EXPECT_EQ(counts.rows, 3u);
  EXPECT_EQ(counts.duplicates, 2u);
  EXPECT_EQ(content("out"),
            row_of(0, "first") + "\n" + row_of(1, "first") + "\n" + row_of(2, "third") + "\n");
}

TEST_F(JournalMergeTest, PartialRowsAndDamagedLinesAreLeftOut) {
  std::string bad = line_of(1, "damaged");
  bad[20] = 'x';
  write("a", partial_line_of(1, {1, 2}) + bad + line_of(1) + std::string(100, '\0') + "\n" +
                 line_of(0) + partial_line_of(0, {3}) + "{\"index\":1,");
  const MergeCounts counts = merge({"a"}, 0, 2);
  EXPECT_EQ(counts.rows, 2u);
  EXPECT_EQ(counts.duplicates, 0u);
  EXPECT_EQ(counts.damaged_lines, 3u);
  EXPECT_EQ(content("out"), row_of(0) + "\n" + row_of(1) + "\n");
}

// The last look before the output is replaced.
TEST_F(JournalMergeTest, WhatForbidsTheCommitLeavesTheOutput) {
  write_rows("a", {0});
  write("out", "before");
  EXPECT_THROW(merge_journals({path("a")}, 0, 1, path("out"), path(""), {},
                              [] { throw FileError("lock", "is lost"); }),
               FileError);
  EXPECT_EQ(content("out"), "before");
  const auto files = std::filesystem::directory_iterator(path(""));
  EXPECT_EQ(std::distance(begin(files), end(files)), 2) << "something is left behind";
}

TEST_F(JournalMergeTest, Errors) {
  write_rows("a", {0, 1, 3});
  write_rows("b", {4});
  EXPECT_EQ(merge_error({"a", "b"}, 0, 5),
            path("a") +
                " and 1 more: record 2 has no row (4 of 5 records have one); run the same "
                "command again, which answers it");
  EXPECT_THAT(merge_error({"a"}, 0, 3), HasSubstr("a: has a row of record 3 at byte"));
  EXPECT_THAT(merge_error({}, 0, 1), HasSubstr("no journal: record 0 has no row"));
  EXPECT_THAT(merge_error({"absent"}, 0, 1), HasSubstr("absent"));
  EXPECT_THAT(merge_error({"b"}, 0, 0), HasSubstr("the records of this job are none"));
  write("partial", partial_line_of(0, {1}));
  EXPECT_THAT(merge_error({"partial"}, 0, 1), HasSubstr("record 0 has no row"));
  write_rows("c", {0});
  EXPECT_THAT(merge_error({"c"}, 0, 1, "no/out"), HasSubstr("no/out: cannot create: No such"));
}

TEST_F(JournalMergeTest, NothingIsMergedToAnEmptyFile) {
  write("a", "");
  EXPECT_EQ(merge({"a"}, 0, 0).rows, 0u);
  EXPECT_EQ(content("out"), "");
}

TEST_F(JournalMergeTest, LongRows) {
  const std::string text(3u << 20, 'x');
  write("j", line_of(2, text) + line_of(1) + line_of(0, text));
  merge({"j"}, 0, 3);
  EXPECT_EQ(content("out"), row_of(0, text) + "\n" + row_of(1) + "\n" + row_of(2, text) + "\n");
}

// More windows of the offset table than are held in memory, visited in strides, so that windows
// are written out and read back.
TEST_F(JournalMergeTest, ManyRowsInAnyOrder) {
  constexpr std::uint64_t kFirst = 1'000'000'007;
  constexpr std::uint64_t kRecords = 17 * 65536 + 11;
  constexpr std::uint64_t kStrides = 5;
  const auto text = [](std::uint64_t index) { return std::string(index % 7, 'x'); };
  {
    std::ofstream a(path("a"));
    std::ofstream b(path("b"));
    for (std::uint64_t start = 0; start < kStrides; ++start) {
      for (std::uint64_t i = kStrides - 1 - start; i < kRecords; i += kStrides) {
        (i % 3 == 0 ? a : b) << line_of(kFirst + i, text(i));
      }
    }
  }
  std::uint64_t told = 0;
  const MergeCounts counts = merge_journals({path("a"), path("b")}, kFirst, kFirst + kRecords,
                                            path("out"), folder_, [&](std::uint64_t rows) {
                                              EXPECT_GT(rows, told);
                                              told = rows;
                                            });
  EXPECT_EQ(counts.rows, kRecords);
  EXPECT_GT(told, 2 * kRecords - 65536);
  EXPECT_LE(told, 2 * kRecords);
  std::ifstream out(path("out"));
  std::string line;
  for (std::uint64_t i = 0; i < kRecords; ++i) {
    ASSERT_TRUE(std::getline(out, line));
    ASSERT_EQ(line, row_of(kFirst + i, text(i)));
  }
  EXPECT_FALSE(std::getline(out, line));
}

}  // namespace
}  // namespace penstock::io
