#include "io/output_file.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "io/file.hpp"
#include "tests/io/foreign_files.hpp"

namespace penstock::io {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using testing::message_of;
using testing::TemporaryFolder;

std::vector<std::string> names_in(const TemporaryFolder& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// No file of this process may grow beyond `bytes`, as on a file system that is full.
class SizeLimit {
 public:
  explicit SizeLimit(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = old_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }
  SizeLimit(const SizeLimit&) = delete;
  SizeLimit& operator=(const SizeLimit&) = delete;

 private:
  rlimit old_{};
  void (*old_handler_)(int);
};

TEST(OutputFileTest, AppearsWhenItIsWhole) {
  const TemporaryFolder folder;
  OutputFile file(folder / "a");
  file.append("one ");
  file.append("two");
  EXPECT_THAT(names_in(folder), ElementsAre(MatchesRegex("a\\.[0-9a-f]{8}\\.tmp")));
  EXPECT_EQ(folder / names_in(folder)[0], file.temporary_path());
  file.commit();
  EXPECT_THAT(names_in(folder), ElementsAre("a"));
  EXPECT_EQ(read_text(folder / "a"), "one two");
}

TEST(OutputFileTest, TakesTheOldFilesPlace) {
  const TemporaryFolder folder;
  folder.write("a", "old and longer");
  OutputFile file(folder / "a");
  file.append("new");
  EXPECT_EQ(read_text(folder / "a"), "old and longer");
  file.commit();
  EXPECT_EQ(read_text(folder / "a"), "new");
  EXPECT_THAT(names_in(folder), ElementsAre("a"));
}

TEST(OutputFileTest, LeavesNothingWhenItIsNotCommitted) {
  const TemporaryFolder folder;
  folder.write("a", "old");
  {
    OutputFile file(folder / "a");
    file.append("new");
    file.write_at(10, "more");
    EXPECT_EQ(names_in(folder).size(), 2U);
  }
  EXPECT_THAT(names_in(folder), ElementsAre("a"));
  EXPECT_EQ(read_text(folder / "a"), "old");
}

// Ranks of one job may stand on hosts that share a file system, with equal process ids.
TEST(OutputFileTest, WritersOfOneNameDoNotMeet) {
  const TemporaryFolder folder;
  std::vector<std::unique_ptr<OutputFile>> files;
  std::set<std::string> names;
  for (int i = 0; i < 16; ++i) {
    files.push_back(std::make_unique<OutputFile>(folder / "a"));
    files.back()->append(std::to_string(i));
    names.insert(files.back()->temporary_path());
  }
  EXPECT_EQ(names.size(), 16U);
  files[7]->commit();
  files[3]->commit();
  EXPECT_EQ(read_text(folder / "a"), "3");
  files.clear();
  EXPECT_THAT(names_in(folder), ElementsAre("a"));
}

TEST(OutputFileTest, AppendsInAnySizes) {
  const TemporaryFolder folder;
  const auto bytes = [](std::size_t size, char first) {
    std::string text(size, first);
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(first + i % 23);
    return text;
  };
  std::string expected;
  OutputFile file(folder / "a");
  for (const std::size_t size : {1u, 0u, 1000u, (1u << 20) - 1001u, 1u, (1u << 20) - 1u, 1u << 20,
                                 5u, (3u << 20) + 7u, 1u << 19, (1u << 19) + 1u, 3u}) {
    const std::string part = bytes(size, static_cast<char>('a' + expected.size() % 26));
    file.append(part);
    expected += part;
  }
  file.commit();
  EXPECT_TRUE(read_text(folder / "a") == expected);
}

TEST(OutputFileTest, WritesAtOffsets) {
  const TemporaryFolder folder;
  OutputFile file(folder / "a");
  file.append("0123456789");
  file.write_at(2, "AB");  // over what was appended just before
  file.write_at(12, "CD");
  file.append("ab");  // goes on behind what was appended
  file.commit();
  EXPECT_EQ(read_text(folder / "a"), "01AB456789abCD");
}

TEST(OutputFileTest, ReserveTakesTheSpace) {
  const TemporaryFolder folder;
  OutputFile file(folder / "a");
  file.reserve(1 << 20);
  struct stat status {};
  ASSERT_EQ(::stat(file.temporary_path().c_str(), &status), 0);
  if (status.st_size == 0) GTEST_SKIP() << "this file system cannot reserve";
  EXPECT_EQ(status.st_size, 1 << 20);
  EXPECT_GE(status.st_blocks * 512, 1 << 20);
}

TEST(OutputFileTest, ADiskTooSmallIsSeenAtTheReservation) {
  const TemporaryFolder folder;
  {
    OutputFile file(folder / "a");
    const SizeLimit limit(1 << 20);
    EXPECT_EQ(message_of([&] { file.reserve(2 << 20); }),
              (folder / "a") + ": cannot take 2097152 bytes: File too large");
  }
  EXPECT_THAT(names_in(folder), IsEmpty());
}

TEST(OutputFileTest, AWriteThatFailsLeavesNothing) {
  const TemporaryFolder folder;
  const std::string reason = (folder / "a") + ": cannot write: File too large";
  const std::string large(3 << 20, 'x');
  const SizeLimit limit(1 << 20);
  EXPECT_EQ(message_of([&] { OutputFile(folder / "a").append(large); }), reason);
  EXPECT_EQ(message_of([&] { OutputFile(folder / "a").write_at(2 << 20, "x"); }), reason);
  EXPECT_EQ(message_of([&] {
              OutputFile file(folder / "a");
              for (int i = 0; i < 3; ++i) file.append(large.substr(0, 500'000));
              file.commit();
            }),
            reason);
  EXPECT_THAT(names_in(folder), IsEmpty());
}

TEST(OutputFileTest, RefusesAFolderAndAMissingOneAtOnce) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "taken");
  EXPECT_EQ(message_of([&] { OutputFile{folder / "taken"}; }),
            (folder / "taken") + ": is a folder, not a file");
  EXPECT_EQ(message_of([&] { OutputFile{folder / "no/a"}; }),
            (folder / "no/a") + ": cannot create: No such file or directory");
  EXPECT_THAT(names_in(folder), ElementsAre("taken"));
}

TEST(OutputFileTest, AFolderMadeInItsPlaceMeanwhileStays) {
  const TemporaryFolder folder;
  {
    OutputFile file(folder / "a");
    fs::create_directory(folder / "a");
    EXPECT_EQ(message_of([&] { file.commit(); }),
              (folder / "a") + ": cannot replace: Is a directory");
  }
  EXPECT_THAT(names_in(folder), ElementsAre("a"));
}

TEST(OutputFileTest, ALinkStaysAndWhatItLeadsToIsWritten) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "scratch");
  fs::create_symlink("scratch/b", folder / "a");              // dangling
  fs::create_symlink(folder / "a", folder / "scratch/to a");  // a link to a link
  for (const char* name : {"a", "scratch/to a"}) {
    OutputFile file(folder / name);
    EXPECT_TRUE(file.temporary_path().starts_with(folder / "scratch/b."));
    file.append(name);
    file.commit();
    EXPECT_TRUE(fs::is_symlink(folder / name));
    EXPECT_FALSE(fs::is_symlink(folder / "scratch/b"));
    EXPECT_EQ(read_text(folder / "scratch/b"), name);
  }
  fs::create_symlink("round", folder / "round");
  EXPECT_EQ(message_of([&] { OutputFile{folder / "round"}; }),
            (folder / "round") + ": is a link that leads round in a circle");
  fs::create_symlink("missing/c", folder / "c");
  EXPECT_EQ(message_of([&] { OutputFile{folder / "c"}; }),
            (folder / "missing/c") + ": cannot create: No such file or directory");
}

TEST(OutputFileTest, NamesWithoutAFolderAreOfTheWorkingOne) {
  const TemporaryFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  OutputFile file("a");
  file.append("x");
  file.commit();
  fs::current_path(before);
  EXPECT_EQ(read_text(folder / "a"), "x");
}

TEST(OutputFileTest, HasTheRightsOfANewFile) {
  const TemporaryFolder folder;
  const mode_t mask = ::umask(027);
  OutputFile(folder / "a").commit();
  ::umask(mask);
  struct stat status {};
  ASSERT_EQ(::stat((folder / "a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0640U);
}

}  // namespace
}  // namespace penstock::io
