#include "io/journal.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>

#include "io/error.hpp"
#include "io/journal_row.hpp"

namespace penstock::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string row_of(std::uint64_t index, const std::string& text = "a") {
  return "{\"id\":null,\"index\":" + std::to_string(index) + ",\"text\":\"" + text + "\"}";
}

class Journal : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/" +
              testing::UnitTest::GetInstance()->current_test_info()->name() + "." +
              std::to_string(::getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  void write(const std::string& name, std::string_view content) const {
    std::ofstream(path(name), std::ios::binary) << content;
  }
  std::string content(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(path(name), std::ios::binary).rdbuf();
    return text.str();
  }
  void write_rows(const std::string& name, const std::vector<std::uint64_t>& indices,
                  const std::string& text = "a") const {
    JournalWriter writer(path(name));
    for (const std::uint64_t index : indices) writer.append(index, row_of(index, text));
  }
  // The indices of the readable rows, then what went wrong.
  std::vector<std::string> read(const std::string& name) const {
    std::vector<std::string> found;
    try {
      JournalReader reader(path(name));
      std::uint64_t index = 0;
      std::string row;
      while (reader.next(index, row)) {
        EXPECT_EQ(nlohmann::json::parse(row)["index"], index);
        found.push_back(std::to_string(index));
      }
      EXPECT_FALSE(reader.next(index, row));
      found.push_back("end at " + std::to_string(reader.valid_bytes()));
    } catch (const FileError& error) {
      found.push_back(error.what());
    }
    return found;
  }
  std::string merge_error(const std::vector<std::string>& journals, std::uint64_t records,
                          const std::string& output = "out") const {
    try {
      merge(journals, records, output);
    } catch (const FileError& error) {
      EXPECT_FALSE(std::filesystem::exists(path("out")));
      for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
        EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
      }
      return error.what();
    }
    return "merged";
  }
  MergeCounts merge(const std::vector<std::string>& journals, std::uint64_t records,
                    const std::string& output = "out") const {
    std::vector<std::string> paths;
    for (const std::string& journal : journals) paths.push_back(path(journal));
    return merge_journals(paths, records, path(output), folder_);
  }

  std::string folder_;
};

// Checksums by the Python package xxhash (xxh3_64_hexdigest).
TEST_F(Journal, RowsAreOutputRowsWithAChecksum) {
  {
    JournalWriter writer(path("j"));
    writer.append(0, R"({"id":null,"index":0,"text":"a"})");
    writer.append(7, "{\"index\":7,\"text\":\"é\"}");
  }
  EXPECT_EQ(content("j"),
            "{\"id\":null,\"index\":0,\"text\":\"a\",\"xxh3\":\"28c9f8f2580819d1\"}\n"
            "{\"index\":7,\"text\":\"é\",\"xxh3\":\"e7564bc8c8095b27\"}\n");
  JournalReader reader(path("j"));
  std::uint64_t index = 0;
  std::string row;
  ASSERT_TRUE(reader.next(index, row));
  EXPECT_EQ(row, R"({"id":null,"index":0,"text":"a"})");
  ASSERT_TRUE(reader.next(index, row));
  EXPECT_EQ(index, 7u);
  EXPECT_EQ(row, "{\"index\":7,\"text\":\"é\"}");
  EXPECT_FALSE(reader.next(index, row));
  EXPECT_EQ(reader.valid_bytes(), content("j").size());
}

TEST_F(Journal, TheIndexIsTheTopLevelOne) {
  const std::string row =
      R"({"id":"\"index\":5,","usage":{"index":6,"list":[{"index":7}]},"index":18446744073709551615})";
  {
    JournalWriter writer(path("j"));
    writer.append(UINT64_MAX, row);
  }
  JournalReader reader(path("j"));
  std::uint64_t index = 0;
  std::string read_row;
  ASSERT_TRUE(reader.next(index, read_row));
  EXPECT_EQ(index, UINT64_MAX);
  EXPECT_EQ(read_row, row);
}

TEST_F(Journal, RowsThatAreNoRowsAreRefused) {
  JournalWriter writer(path("j"));
  EXPECT_THROW(writer.append(0, "{}"), std::invalid_argument);
  EXPECT_THROW(writer.append(0, "text"), std::invalid_argument);
  EXPECT_THROW(writer.append(1, row_of(2)), std::invalid_argument);
  EXPECT_THROW(writer.append(0, "{\"index\":0,\n\"text\":1}"), std::invalid_argument);
  EXPECT_THROW(writer.append(0, R"({"index":"0"})"), std::invalid_argument);
  EXPECT_THROW(writer.append(0, R"({"index":-0.5})"), std::invalid_argument);
}

TEST_F(Journal, IsAppendedTo) {
  write_rows("j", {3, 1});
  write_rows("j", {2});
  EXPECT_THAT(read("j"),
              ElementsAre("3", "1", "2", "end at " + std::to_string(content("j").size())));
}

TEST_F(Journal, FlushMakesRowsVisible) {
  JournalWriter writer(path("j"));
  writer.append(4, row_of(4));
  EXPECT_EQ(content("j"), "");
  writer.flush();
  EXPECT_EQ(read("j").front(), "4");
  writer.append(5, row_of(5));
  writer.sync();
  EXPECT_EQ(read("j")[1], "5");
  writer.append(6, row_of(6));
  JournalWriter moved = std::move(writer);
  moved.append(7, row_of(7));
  moved = JournalWriter(path("other"));
  EXPECT_EQ(read("j").size(), 5u);
}

// Every cut of the last row, and every flipped byte in it, is the end of the journal.
TEST_F(Journal, ATornOrDamagedLastRowIsTheEnd) {
  write_rows("j", {0, 1});
  const std::string good = content("j");
  const std::size_t second = good.find('\n') + 1;
  const std::string end = "end at " + std::to_string(second);
  for (std::size_t size = second; size < good.size(); ++size) {
    write("cut", good.substr(0, size));
    EXPECT_THAT(read("cut"), ElementsAre("0", end)) << size;
  }
  for (std::size_t i = second; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    write("bad", bad);
    EXPECT_THAT(read("bad"), ElementsAre("0", end)) << i;
  }
}

TEST_F(Journal, DamageBeforeTheEndIsAnError) {
  write_rows("j", {0, 1, 2});
  const std::string good = content("j");
  const std::size_t second = good.find('\n') + 1;
  std::string bad = good;
  bad[second + 20] = static_cast<char>(bad[second + 20] ^ 1);
  write("bad", bad);
  EXPECT_THAT(read("bad"),
              ElementsAre("0", path("bad") + ": line 2 is damaged: its checksum is wrong"));
  write("blank", good.substr(0, second) + "\n" + good.substr(second));
  EXPECT_THAT(read("blank"), ElementsAre("0", HasSubstr("blank: line 2 is damaged")));
}

TEST_F(Journal, ATornTailIsCutOffBeforeMoreIsAppended) {
  write_rows("good", {0, 1});
  const std::string good = content("good");
  const std::size_t second = good.find('\n') + 1;
  for (const std::size_t size : {second - 1, second, second + 1, good.size() - 1, good.size()}) {
    write("j", good.substr(0, size));
    write_rows("j", {9});
    auto found = read("j");
    found.pop_back();
    const std::vector<std::string> expected = size < second ? std::vector<std::string>{"9"}
                                              : size < good.size()
                                                  ? std::vector<std::string>{"0", "9"}
                                                  : std::vector<std::string>{"0", "1", "9"};
    EXPECT_EQ(found, expected) << size;
  }
  write("j", good.substr(0, good.size() - 5) + "zzzz\n");  // whole, but damaged
  write_rows("j", {9});
  EXPECT_THAT(read("j"), ElementsAre("0", "9", ::testing::_));
  write("j", good + to_journal_line(R"({"text":"a"})"));  // of no record
  write_rows("j", {9});
  EXPECT_THAT(read("j"), ElementsAre("0", "1", "9", ::testing::_));
  // The torn row is longer than one backward read.
  write("j", good + std::string(3u << 20, 'x'));
  write_rows("j", {9});
  EXPECT_THAT(read("j"), ElementsAre("0", "1", "9", ::testing::_));
}

TEST_F(Journal, LongRows) {
  const std::string text(3u << 20, 'x');
  {
    JournalWriter writer(path("j"));
    writer.append(0, row_of(0, text));
    writer.append(1, row_of(1));
    writer.append(2, row_of(2, text));
  }
  EXPECT_THAT(read("j"), ElementsAre("0", "1", "2", ::testing::_));
  merge({"j"}, 3);
  EXPECT_EQ(content("out"), row_of(0, text) + "\n" + row_of(1) + "\n" + row_of(2, text) + "\n");
}

TEST_F(Journal, AFullDiskIsAnError) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  JournalWriter writer("/dev/full");
  writer.append(0, row_of(0));
  try {
    writer.flush();
    FAIL() << "written to a full disk";
  } catch (const FileError& error) {
    EXPECT_THAT(error.what(), HasSubstr("/dev/full: cannot write: No space left"));
  }
}

TEST_F(Journal, MissingFilesAreErrors) {
  EXPECT_THROW(JournalReader(path("absent")), FileError);
  EXPECT_THROW(JournalWriter(path("no/folder")), FileError);
}

TEST_F(Journal, MergePutsRowsInOrder) {
  write_rows("a", {2, 0});
  write_rows("b", {3, 1});
  const MergeCounts counts = merge({"a", "b"}, 4);
  EXPECT_EQ(counts.rows, 4u);
  EXPECT_EQ(counts.duplicates, 0u);
  EXPECT_EQ(content("out"),
            row_of(0) + "\n" + row_of(1) + "\n" + row_of(2) + "\n" + row_of(3) + "\n");
  // Nothing else is left behind.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 3);
}

TEST_F(Journal, TheFirstRowOfARecordIsTaken) {
  write_rows("a", {0, 1}, "first");
  write_rows("a", {1}, "second");
  write_rows("b", {1, 2}, "third");
  const MergeCounts counts = merge({"a", "b"}, 3);
  EXPECT_EQ(counts.rows, 3u);
  EXPECT_EQ(counts.duplicates, 2u);
  EXPECT_EQ(content("out"),
            row_of(0, "first") + "\n" + row_of(1, "first") + "\n" + row_of(2, "third") + "\n");
}

TEST_F(Journal, ATornTailDoesNotCount) {
  write_rows("a", {0, 1});
  write("a", content("a") + "{\"index\":1,");
  EXPECT_EQ(merge({"a"}, 2).rows, 2u);
}

TEST_F(Journal, MergeErrors) {
  write_rows("a", {0, 1, 3});
  write_rows("b", {4});
  EXPECT_EQ(merge_error({"a", "b"}, 5),
            path("a") + " and 1 more: record 2 has no row (4 of 5 records have one)");
  EXPECT_THAT(merge_error({"a"}, 3), HasSubstr("a: has a row of record 3 at byte"));
  EXPECT_THAT(merge_error({}, 1), HasSubstr("no journal: record 0 has no row"));
  EXPECT_THAT(merge_error({"absent"}, 1), HasSubstr("absent"));
  EXPECT_THAT(merge_error({"b"}, 0), HasSubstr("the dataset has 0 records"));
  write_rows("c", {0});
  EXPECT_THAT(merge_error({"c"}, 1, "no/out"), HasSubstr("no/out: cannot create: No such"));
}

TEST_F(Journal, NothingIsMergedToAnEmptyFile) {
  write("a", "");
  EXPECT_EQ(merge({"a"}, 0).rows, 0u);
  EXPECT_EQ(content("out"), "");
}

// More windows of the offset table than are held in memory, visited in strides, so that windows
// are written out and read back.
TEST_F(Journal, ManyRowsInAnyOrder) {
  constexpr std::uint64_t kRecords = 17 * 65536 + 11;
  constexpr std::uint64_t kStrides = 5;
  const auto text = [](std::uint64_t index) { return std::string(index % 7, 'x'); };
  {
    JournalWriter a(path("a"));
    JournalWriter b(path("b"));
    for (std::uint64_t start = 0; start < kStrides; ++start) {
      for (std::uint64_t i = kStrides - 1 - start; i < kRecords; i += kStrides) {
        (i % 3 == 0 ? a : b).append(i, row_of(i, text(i)));
      }
    }
  }
  EXPECT_EQ(merge({"a", "b"}, kRecords).rows, kRecords);
  std::ifstream out(path("out"));
  std::string line;
  for (std::uint64_t i = 0; i < kRecords; ++i) {
    ASSERT_TRUE(std::getline(out, line));
    ASSERT_EQ(line, row_of(i, text(i)));
  }
  EXPECT_FALSE(std::getline(out, line));
}

}  // namespace
}  // namespace penstock::io
