#include "io/file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <limits>
#include <utility>

#include "tests/io/foreign_files.hpp"

namespace penstock::io {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;

std::string read(const File& file, std::uint64_t offset, std::size_t size) {
  std::string text(size, '?');
  file.read_at(offset, std::as_writable_bytes(std::span(text)));
  return text;
}

TEST(FileTest, ReadsAtAnyOffset) {
  const TemporaryFolder folder;
  const File file(folder.write("a", "0123456789"));
  EXPECT_EQ(file.size_bytes(), 10u);
  EXPECT_EQ(file.path(), folder / "a");
  EXPECT_EQ(read(file, 0, 10), "0123456789");
  EXPECT_EQ(read(file, 7, 3), "789");
  EXPECT_EQ(read(file, 10, 0), "");
}

TEST(FileTest, AReadBeyondTheEndSaysWhere) {
  const TemporaryFolder folder;
  const File file(folder.write("a", "0123456789"));
  EXPECT_EQ(message_of([&] { read(file, 8, 5); }),
            (folder / "a") + ": ends too early: 3 bytes are missing at byte 10");
  EXPECT_EQ(message_of([&] { read(file, std::numeric_limits<std::uint64_t>::max(), 1); }),
            (folder / "a") + ": ends too early: 1 bytes are missing at byte 18446744073709551615");
}

TEST(FileTest, MovesAndCloses) {
  const TemporaryFolder folder;
  File first(folder.write("a", "aaa"));
  File second(folder.write("b", "bbb"));
  second = std::move(first);
  EXPECT_EQ(second.path(), folder / "a");
  EXPECT_EQ(read(second, 0, 3), "aaa");
  const File third(std::move(second));
  EXPECT_EQ(read(third, 1, 1), "a");
}

TEST(FileTest, RefusesWhatIsNotARegularFile) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of([&] { File(folder / "missing"); }),
            (folder / "missing") + ": cannot open: No such file or directory");
  EXPECT_EQ(message_of([&] { File{folder.path()}; }), folder.path() + ": is a folder, not a file");
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(message_of([&] { File(folder / "fifo"); }),
            (folder / "fifo") + ": is not a regular file");
}

TEST(ReadTextTest, ReadsAllUpToTheLimit) {
  const TemporaryFolder folder;
  const std::string large(200'000, 'x');
  EXPECT_EQ(read_text(folder.write("a", large)), large);
  EXPECT_EQ(read_text(folder / "a", large.size()), large);
  EXPECT_EQ(read_text(folder.write("empty", "")), "");
  EXPECT_EQ(message_of([&] { read_text(folder / "a", large.size() - 1); }),
            (folder / "a") + ": is larger than the 199999 bytes allowed here");
  EXPECT_THAT(message_of([&] { read_text(folder.path()); }), HasSubstr("directory"));
}

TEST(ReadTextTest, ReadsFilesThatHaveNoSize) {
  EXPECT_THAT(read_text("/proc/self/status"), HasSubstr("Name:"));
}

TEST(ReplaceFileTest, WritesAndReplacesAndLeavesNothingElse) {
  const TemporaryFolder folder;
  replace_file(folder / "state", "first");
  EXPECT_EQ(read_text(folder / "state"), "first");
  const std::string large(1'000'000, 'y');
  replace_file(folder / "state", large);
  EXPECT_EQ(read_text(folder / "state"), large);
  const auto files = std::filesystem::directory_iterator(folder.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST(ReplaceFileTest, AFailureLeavesTheOldFileAndNoTemporaryOne) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of([&] { replace_file(folder / "no/state", "x"); }),
            (folder / "no/state") + ": cannot create: No such file or directory");
  std::filesystem::create_directory(folder / "taken");
  EXPECT_EQ(message_of([&] { replace_file(folder / "taken", "x"); }),
            (folder / "taken") + ": is a folder, not a file");
  const auto files = std::filesystem::directory_iterator(folder.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST(QuotedTest, IsFitForATerminal) {
  EXPECT_EQ(io::quoted("blk.0.attn_q.weight"), "'blk.0.attn_q.weight'");
  EXPECT_EQ(io::quoted("größe"), "'größe'");
  EXPECT_EQ(io::quoted("a\x1b[2J\n\x7f"), "'a\\x1b[2J\\x0a\\x7f'");
  EXPECT_EQ(io::quoted("c1\xc2\x9b"), "'c1\\x9b'");
  EXPECT_EQ(io::quoted("bad\xff"), "'bad\xef\xbf\xbd'");
  EXPECT_EQ(io::quoted(std::string(200, 'n')), "'" + std::string(120, 'n') + "…'");
}

}  // namespace
}  // namespace penstock::io
