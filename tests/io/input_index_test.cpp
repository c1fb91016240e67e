#include "io/input_index.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "io/error.hpp"

namespace penstock::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class InputIndex : public ::testing::Test {
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
  // "line: text" of each record.
  std::vector<std::string> lines_of(std::string_view content) const {
    write("in", content);
    const std::uint64_t count = build_index(path("in"), path("index"));
    const IndexedInput input(path("in"), path("index"));
    EXPECT_EQ(input.size(), count);
    std::vector<std::string> lines;
    for (const IndexEntry& entry : input.entries(0, count)) {
      lines.push_back(std::to_string(entry.line) + ": " + input.line(entry));
      EXPECT_EQ(content.substr(entry.offset, entry.length), input.line(entry));
    }
    return lines;
  }
  std::string index_error(std::string_view content) const {
    write("in", content);
    try {
      build_index(path("in"), path("index"));
    } catch (const FileError& error) {
      EXPECT_FALSE(std::filesystem::exists(path("index")));
      for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
        EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
      }
      return error.what();
    }
    return "accepted";
  }
  std::string open_error() const {
    try {
      const IndexedInput input(path("in"), path("index"));
    } catch (const FileError& error) {
      return error.what();
    }
    return "accepted";
  }

  std::string folder_;
};

TEST_F(InputIndex, Lines) {
  EXPECT_THAT(lines_of("one\ntwo\nthree\n"), ElementsAre("1: one", "2: two", "3: three"));
  EXPECT_THAT(lines_of("one\ntwo"), ElementsAre("1: one", "2: two"));
  EXPECT_THAT(lines_of(""), ElementsAre());
  EXPECT_THAT(lines_of("\n\n"), ElementsAre());
}

TEST_F(InputIndex, BlankLinesAreCountedButAreNoRecords) {
  EXPECT_THAT(lines_of("\n a \n \t \n\r\nb\n  "), ElementsAre("2:  a ", "5: b"));
}

TEST_F(InputIndex, CarriageReturns) {
  EXPECT_THAT(lines_of("one\r\ntwo\r\r\nthree\r"), ElementsAre("1: one", "2: two\r", "3: three"));
}

TEST_F(InputIndex, ByteOrderMarkIsSkipped) {
  EXPECT_THAT(lines_of("\xEF\xBB\xBFone\n\xEF\xBB\xBFtwo"),
              ElementsAre("1: one", "2: \xEF\xBB\xBFtwo"));
}

TEST_F(InputIndex, ZeroBytesBelongToTheLine) {
  EXPECT_THAT(lines_of(std::string_view("a\0b\nc", 5)),
              ElementsAre(std::string("1: a\0b", 6), "2: c"));
}

// Lines that span the reads of 4 MiB, with the newline at, before and behind the border.
TEST_F(InputIndex, LongLines) {
  constexpr std::size_t kRead = 4u << 20;
  for (const std::size_t length : {kRead - 2, kRead - 1, kRead, kRead + 1, 2 * kRead + 7}) {
    const std::string text(length, 'x');
    const auto lines = lines_of(text + "\r\ny\n");
    ASSERT_EQ(lines.size(), 2u) << length;
    EXPECT_EQ(lines[0], "1: " + text) << length;
    EXPECT_EQ(lines[1], "2: y") << length;
  }
}

// The record gets its error row, and nobody takes memory for it. The long lines are holes.
TEST_F(InputIndex, LinesAboveTheLimitAreIndexedButNotRead) {
  constexpr std::uint64_t kLimit = kMaxLineBytes;
  write("in", "a\n");
  std::filesystem::resize_file(path("in"), 2 + kLimit);
  std::ofstream(path("in"), std::ios::app) << "\r\n";
  std::filesystem::resize_file(path("in"), 2 + kLimit + 2 + kLimit + 1);
  std::ofstream(path("in"), std::ios::app) << "\nz\n";
  ASSERT_EQ(build_index(path("in"), path("index")), 4u);
  const IndexedInput input(path("in"), path("index"));
  const auto entries = input.entries(0, 4);
  EXPECT_TRUE(input.line(entries[1]) == std::string(kLimit, '\0'));
  try {
    input.line(entries[2]);
    FAIL() << "read";
  } catch (const RecordError& error) {
    EXPECT_STREQ(error.what(), "the line has 67108865 bytes; a record may have 67108864 (64 MiB)");
  }
  EXPECT_EQ(entries[2].line, 3u);
  EXPECT_EQ(input.line(entries[3]), "z");
}

// Scanning 4 GiB takes seconds; so the entry of such a line is put into the index by hand.
TEST_F(InputIndex, LinesLongerThanAnEntryCanSayAreNotRead) {
  constexpr std::uint64_t kLong = (std::uint64_t{4} << 30) + 5;
  write("in", "a");
  build_index(path("in"), path("index"));
  std::filesystem::resize_file(path("in"), kLong);  // a hole
  std::fstream index(path("index"), std::ios::binary | std::ios::in | std::ios::out);
  const auto put = [&](std::streamoff at, const auto& value) {
    index.seekp(at).write(reinterpret_cast<const char*>(&value), sizeof value);
  };
  put(24, kLong);                  // the input's bytes
  put(32 + 8, ~std::uint32_t{0});  // the line's
  index.close();
  const IndexedInput input(path("in"), path("index"));
  try {
    input.line(input.entries(0, 1)[0]);
    FAIL() << "read";
  } catch (const RecordError& error) {
    EXPECT_THAT(error.what(), HasSubstr("the line has at least 4294967295 bytes"));
  }
}

TEST_F(InputIndex, EqualPrefixesHaveEqualHashes) {
  const std::string prefix(256, 'p');
  write("in", prefix + "1\n" + prefix + "2\r\n" + "q" + prefix + "\nshort\nshort\r\nshorz\n" +
                  prefix + "\r\n" + prefix + "\n");
  build_index(path("in"), path("index"));
  const auto entries = IndexedInput(path("in"), path("index")).entries(0, 8);
  EXPECT_EQ(entries[0].prefix_hash, entries[1].prefix_hash);
  EXPECT_NE(entries[0].prefix_hash, entries[2].prefix_hash);
  EXPECT_EQ(entries[3].prefix_hash, entries[4].prefix_hash);
  EXPECT_NE(entries[3].prefix_hash, entries[5].prefix_hash);
  EXPECT_EQ(entries[6].prefix_hash, entries[0].prefix_hash);
  EXPECT_EQ(entries[7].prefix_hash, entries[0].prefix_hash);
  // XXH3-64 of "short", by the Python package xxhash.
  EXPECT_EQ(entries[3].prefix_hash, 0x60d20d0au);
  EXPECT_EQ(entries[3].hash, 0xb42ad57460d20d0aull);
}

TEST_F(InputIndex, TheBoundOfAnAnswer) {
  const std::vector<std::pair<std::string, std::uint32_t>> lines = {
      {R"({"prompt":"a","max_tokens":17})", 17},
      {"{\"max_tokens\" : \t 5 ,\"prompt\":\"a\"}", 5},
      {R"({"max_tokens":99999999999999999999999})", 4294967295},
      {R"({"max_tokens":4294967296})", 4294967295},
      {R"({"prompt":"a"})", 0},
      {R"({"max_tokens":null})", 0},
      {R"({"max_tokens":"12"})", 0},
      {R"({"max_tokens":-3})", 0},
      {R"({"max_tokens":1.5})", 0},
      {R"({"max_tokens":1e3})", 0},
      {R"({"max_tokens")", 0},
      {R"({"max_tokens":)", 0},
      {R"({"prompt":"write \"max_tokens\": 9"})", 0},
  };
  std::string text;
  for (const auto& [line, bound] : lines) text += line + "\n";
  write("in", text);
  build_index(path("in"), path("index"));
  const auto entries = IndexedInput(path("in"), path("index")).entries(0, lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(entries[i].max_tokens, lines[i].second) << lines[i].first;
  }
}

// The input is read in parts of 4 MiB.
TEST_F(InputIndex, TheBoundAcrossParts) {
  const std::string field = R"("max_tokens": 1234567, "prompt":"a"})";
  for (std::size_t before = 0; before <= field.size(); ++before) {
    const std::string start = "{\"id\":\"";
    const std::string filler((4u << 20) - before - start.size() - 2, 'x');
    write("in", start + filler + "\"," + field + "\n{\"prompt\":\"b\"}\n");
    build_index(path("in"), path("index"));
    const auto entries = IndexedInput(path("in"), path("index")).entries(0, 2);
    EXPECT_EQ(entries[0].max_tokens, 1234567u) << before;
    EXPECT_EQ(entries[1].max_tokens, 0u);
  }
}

// Whatever else is changed, a line that is not the indexed one is never answered.
TEST_F(InputIndex, AChangedLineIsRefused) {
  const std::string tail(1000, 'x');
  lines_of("first\r\n" + tail + "y\nlast\n");
  const IndexedInput input(path("in"), path("index"));
  const auto entries = input.entries(0, 3);
  EXPECT_EQ(input.line(entries[0]), "first");
  EXPECT_EQ(input.line(entries[1]), tail + "y");
  write("in", "first\r\n" + tail + "z\nlast\n");
  EXPECT_EQ(input.line(entries[0]), "first");
  EXPECT_EQ(input.line(entries[2]), "last");
  EXPECT_THAT([&] { input.line(entries[1]); },
              testing::ThrowsMessage<FileError>(HasSubstr("line 2 has changed")));
}

TEST_F(InputIndex, EntriesAreReadAsAsked) {
  lines_of("a\nb\nc\nd\n");
  const IndexedInput input(path("in"), path("index"));
  EXPECT_EQ(input.entries(1, 2)[1].line, 3u);
  EXPECT_TRUE(input.entries(4, 0).empty());
  EXPECT_THROW(input.entries(3, 2), FileError);
  EXPECT_THROW(input.entries(5, 0), FileError);
  EXPECT_THROW(input.entries(1, UINT64_MAX), FileError);
  EXPECT_EQ(std::filesystem::file_size(path("index")), 32u + 4 * 32u);
}

TEST_F(InputIndex, ForeignInputsAreRefused) {
  EXPECT_THAT(index_error("\x1f\x8b\x08xx"), HasSubstr("in: is compressed (gzip)"));
  EXPECT_THAT(index_error("\x28\xb5\x2f\xfdxx"), HasSubstr("in: is compressed (zstd)"));
  EXPECT_THAT(index_error("\xff\xfe{"), HasSubstr("in: is UTF-16"));
  EXPECT_THROW(build_index(path("absent"), path("index")), FileError);
  EXPECT_THROW(build_index(folder_, path("index")), FileError);
  EXPECT_THROW(build_index(path("in"), path("no/index")), FileError);
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  try {
    build_index(path("pipe"), path("index"));
    FAIL() << "a pipe was accepted";
  } catch (const FileError& error) {
    EXPECT_THAT(error.what(), HasSubstr("is a pipe; pipe it into standard input"));
  }
}

TEST_F(InputIndex, AnInputThatChangedIsRefused) {
  lines_of("a\nb\n");
  write("in", "a\nbb\n");
  EXPECT_THAT(open_error(), HasSubstr("in: has 5 bytes but had 4 when it was indexed"));
}

TEST_F(InputIndex, BrokenIndexesAreRefused) {
  lines_of("a\nb\n");
  std::ostringstream content;
  content << std::ifstream(path("index"), std::ios::binary).rdbuf();
  const std::string good = content.str();
  ASSERT_EQ(open_error(), "accepted");
  write("index", good.substr(0, 31));
  EXPECT_THAT(open_error(), HasSubstr("index: is too short"));
  write("index", good.substr(0, good.size() - 1));
  EXPECT_THAT(open_error(), HasSubstr("index: says 2 records but holds 63 bytes"));
  std::string changed = good;
  changed[0] = 'X';
  write("index", changed);
  EXPECT_THAT(open_error(), HasSubstr("index: is not an index of records"));
  changed = good;
  changed[8] = 9;
  write("index", changed);
  EXPECT_THAT(open_error(), HasSubstr("index: has index version 9"));
  changed = good;
  changed[16] = 3;
  write("index", changed);
  EXPECT_THAT(open_error(), HasSubstr("index: says 3 records"));
  // An entry that lies beyond the input: refused before its length is allocated.
  changed = good;
  changed[32 + 11] = '\x7f';  // the highest byte of the first length
  write("index", changed);
  const IndexedInput input(path("in"), path("index"));
  try {
    input.line(input.entries(0, 1)[0]);
    FAIL() << "read beyond the end";
  } catch (const FileError& error) {
    EXPECT_THAT(error.what(), HasSubstr("index: places line 1 beyond the input's end"));
  }
}

TEST_F(InputIndex, LimitLeavesTheRestUnread) {
  write("in", "\none\n\ntwo\nthree\nfour");
  EXPECT_EQ(build_index(path("in"), path("index"), 2), 2u);
  const IndexedInput input(path("in"), path("index"));
  ASSERT_EQ(input.size(), 2u);
  EXPECT_EQ(input.line(input.entries(1, 1)[0]), "two");
  EXPECT_EQ(build_index(path("in"), path("index"), 0), 0u);
  EXPECT_EQ(build_index(path("in"), path("index"), 4), 4u);
  EXPECT_EQ(build_index(path("in"), path("index"), 9), 4u);
}

TEST_F(InputIndex, Formats) {
  const auto format_of = [&](const std::string& name, const std::string& content) {
    write(name, content);
    return detect_format(path(name), "shown");
  };
  EXPECT_EQ(format_of("a.jsonl", "hello\n"), InputFormat::jsonl);
  EXPECT_EQ(format_of("a.ndjson", ""), InputFormat::jsonl);
  EXPECT_EQ(format_of("a.json", "{}\noops\n"), InputFormat::jsonl);
  EXPECT_EQ(format_of("a.txt", "hello"), InputFormat::text);
  EXPECT_EQ(format_of("b.txt", "{\"prompt\": 1}"), InputFormat::text);
  EXPECT_EQ(format_of("b", "\xEF\xBB\xBF\r\n\t {\"prompt\": 1}\n\n{"), InputFormat::jsonl);
  EXPECT_EQ(format_of("c", ""), InputFormat::text);
  EXPECT_EQ(format_of("d", "[1]\na {\n"), InputFormat::text);
}

TEST_F(InputIndex, FormatsThatCannotBeTold) {
  const auto expect_refused = [&](const std::string& name, const std::string& content,
                                  const std::string& reason) {
    write(name, content);
    try {
      detect_format(path(name), "shown");
      ADD_FAILURE() << content;
    } catch (const FileError& error) {
      EXPECT_THAT(error.what(), HasSubstr("shown: " + reason));
    }
  };
  expect_refused("mixed", "oops\n{\"prompt\": 1}\n", "is JSONL or text?");
  expect_refused("mixed", "{\"prompt\": 1}\n\nprompt 2\n", "is JSONL or text?");
  expect_refused("list.json", "\n [\n {\"prompt\": 1}\n]\n", "is a JSON list");
}

}  // namespace
}  // namespace penstock::io
