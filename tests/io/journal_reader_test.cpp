#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "io/error.hpp"
#include "io/journal.hpp"
#include "tests/io/journal_support.hpp"

namespace penstock::io {
namespace {

using ::testing::ElementsAre;

class JournalReaderTest : public JournalTest {};

TEST_F(JournalReaderTest, GivesRowsAndTheirPlaces) {
  const std::string rows = line_of(3, "é") + partial_line_of(7, {5, 6}) + line_of(0);
  write("j", rows);
  JournalReader reader(path("j"));
  JournalRow row;
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(row.index, 3u);
  EXPECT_FALSE(row.partial);
  EXPECT_EQ(row.row, row_of(3, "é"));
  EXPECT_EQ(row.offset, 0u);
  EXPECT_EQ(row.length, line_of(3, "é").size() - 1);
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(row.index, 7u);
  EXPECT_TRUE(row.partial);
  EXPECT_EQ(row.row, "");
  EXPECT_THAT(row.tokens, ElementsAre(5, 6));
  EXPECT_EQ(row.offset, line_of(3, "é").size());
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(row.index, 0u);
  EXPECT_TRUE(row.tokens.empty());
  EXPECT_EQ(rows.substr(row.offset, row.length) + "\n", line_of(0));
  EXPECT_FALSE(reader.next(row));
  EXPECT_EQ(reader.damaged_lines(), 0u);
}

TEST_F(JournalReaderTest, EveryCutOfTheLastRowIsSkipped) {
  const std::string good = line_of(0) + line_of(1);
  for (std::size_t size = line_of(0).size(); size < good.size(); ++size) {
    write("cut", good.substr(0, size));
    const std::string damaged = size == line_of(0).size() ? "0 damaged" : "1 damaged";
    EXPECT_THAT(read("cut"), ElementsAre("0", damaged)) << size;
  }
}

TEST_F(JournalReaderTest, EveryFlippedByteIsSeenAndCostsItsRowOnly) {
  for (const std::string& middle : {line_of(1), partial_line_of(1, {1, 2, 3})}) {
    const std::string good = line_of(0) + middle + line_of(2);
    const std::size_t second = line_of(0).size();
    for (std::size_t i = second; i < second + middle.size() - 1; ++i) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ 1);
      write("bad", bad);
      EXPECT_THAT(read("bad"), ElementsAre("0", "2", "1 damaged")) << i;
    }
    // Without its newline it takes the next row with it.
    std::string bad = good;
    bad[second + middle.size() - 1] = ' ';
    write("bad", bad);
    EXPECT_THAT(read("bad"), ElementsAre("0", "1 damaged"));
  }
}

TEST_F(JournalReaderTest, SkipsRubbish) {
  const std::string zeros(5000, '\0');
  write("j", line_of(0) + zeros + "\n" + line_of(1) + "\r\n\n\n{}\n" + zeros + line_of(2) +
                 to_journal_line(R"({"text":"of no record"})") +
                 to_journal_line(R"({"partial":[-1],"index":3})") + line_of(4) + zeros);
  EXPECT_THAT(read("j"), ElementsAre("0", "1", "4", "7 damaged"));
  write("blank", "\n" + line_of(0) + "\n\n" + line_of(1) + "\n");
  EXPECT_THAT(read("blank"), ElementsAre("0", "1", "0 damaged"));
  write("empty", "");
  EXPECT_THAT(read("empty"), ElementsAre("0 damaged"));
}

TEST_F(JournalReaderTest, LongRows) {
  const std::string text(3u << 20, 'x');
  write("j", line_of(0, text) + line_of(1) + line_of(2, text) + line_of(3, text).substr(0, 9000));
  EXPECT_THAT(read("j"), ElementsAre("0", "1", "2", "1 damaged"));
}

// A hole, as some file systems leave after a crash; longer than any row, and not kept in memory.
TEST_F(JournalReaderTest, SkipsLinesThatAreLongerThanAnyRow) {
  write("j", line_of(0));
  const std::uint64_t hole = kMaxRowBytes + (3u << 20) + 12345;
  std::filesystem::resize_file(path("j"), line_of(0).size() + hole);
  std::ofstream(path("j"), std::ios::app) << line_of(1) << line_of(2);
  JournalReader reader(path("j"));
  JournalRow row;
  ASSERT_TRUE(reader.next(row));
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(row.index, 2u);
  EXPECT_EQ(row.offset, line_of(0).size() + hole + line_of(1).size());
  EXPECT_FALSE(reader.next(row));
  EXPECT_EQ(reader.damaged_lines(), 1u);
  // As the last line.
  std::filesystem::resize_file(path("j"), line_of(0).size() + hole);
  EXPECT_THAT(read("j"), ElementsAre("0", "1 damaged"));
}

TEST_F(JournalReaderTest, MissingFilesAreErrors) {
  EXPECT_THROW(JournalReader(path("absent")), FileError);
}

}  // namespace
}  // namespace penstock::io
