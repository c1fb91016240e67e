#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "io/error.hpp"
#include "io/journal.hpp"
#include "tests/io/journal_support.hpp"

namespace {

std::atomic<int> syncs_made{0};
std::atomic<int> syncs_to_fail{0};

}  // namespace

// Stands before the C library's, for the whole test program.
extern "C" int fdatasync(int descriptor) {
  ++syncs_made;
  if (syncs_to_fail > 0) {
    --syncs_to_fail;
    errno = EIO;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fdatasync, descriptor));
}

namespace penstock::io {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

JournalLimits only_when_asked() {
  JournalLimits limits;
  limits.delay = 1h;
  limits.rows = SIZE_MAX;
  return limits;
}

JournalLimits at_once() {
  JournalLimits limits;
  limits.rows = 1;
  return limits;
}

// For what a thread does sooner or later.
bool comes_true(const std::function<bool()>& condition) {
  for (int i = 0; i < 6000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const FileError& error) {
    return error.what();
  }
  return "no error";
}

// No file of this process may be longer, as on a full disk.
class FullDisk {
 public:
  explicit FullDisk(std::uint64_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FullDisk() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

class JournalWriterTest : public JournalTest {
 protected:
  bool has(const std::string& name, const std::string& expected) const {
    return comes_true([&] { return content(name) == expected; });
  }
};

TEST_F(JournalWriterTest, WritesLines) {
  {
    JournalWriter writer(path("j"));
    writer.append(0, row_of(0));
    writer.append_partial(7, std::vector<std::int32_t>{1, 2, 3});
    writer.append(7, row_of(7, "é"));
  }
  EXPECT_EQ(content("j"), line_of(0) + partial_line_of(7, {1, 2, 3}) + line_of(7, "é"));
}

TEST_F(JournalWriterTest, RefusesWhatIsNoRow) {
  JournalWriter writer(path("j"));
  EXPECT_THROW(writer.append(0, "{}"), std::invalid_argument);
  EXPECT_THROW(writer.append(0, "text"), std::invalid_argument);
  EXPECT_THROW(writer.append(1, row_of(2)), std::invalid_argument);
  EXPECT_THROW(writer.append(0, "{\"index\":0,\n\"text\":1}"), std::invalid_argument);
  EXPECT_THROW(writer.append(0, R"({"index":"0"})"), std::invalid_argument);
  EXPECT_THROW(writer.append(0, R"({"index":-0.5})"), std::invalid_argument);
  EXPECT_THROW(writer.append(0, R"({"partial":[],"index":0})"), std::invalid_argument);
  EXPECT_THROW(writer.append_partial(0, std::vector<std::int32_t>{-1}), std::invalid_argument);
  writer.sync();
  EXPECT_EQ(content("j"), "");
}

TEST_F(JournalWriterTest, AppendsToWhatIsThere) {
  write_rows("j", {3, 1});
  write_rows("j", {2});
  EXPECT_THAT(read("j"), ElementsAre("3", "1", "2", "0 damaged"));
}

TEST_F(JournalWriterTest, CutsOffALineWithoutNewline) {
  const std::string good = line_of(0) + line_of(1);
  const std::size_t second = line_of(0).size();
  for (const std::size_t size : {second - 1, second, second + 1, good.size() - 1, good.size()}) {
    write("j", good.substr(0, size));
    write_rows("j", {9});
    EXPECT_EQ(content("j"), (size < second        ? std::string()
                             : size < good.size() ? line_of(0)
                                                  : good) +
                                line_of(9))
        << size;
  }
  write("j", good + "damaged\n");  // is not in the way
  write_rows("j", {9});
  EXPECT_EQ(content("j"), good + "damaged\n" + line_of(9));
  for (const std::size_t size : {(std::size_t{3} << 20) - good.size(), std::size_t{3} << 20}) {
    write("j", good + std::string(size, '\0'));
    write_rows("j", {9});
    EXPECT_EQ(content("j"), good + line_of(9)) << size;
  }
}

TEST_F(JournalWriterTest, WritesOnlyWhenItIsTime) {
  JournalWriter writer(path("j"), only_when_asked());
  writer.append(4, row_of(4));
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(content("j"), "");
  const int syncs = syncs_made;
  writer.sync();
  EXPECT_EQ(content("j"), line_of(4));
  EXPECT_EQ(syncs_made, syncs + 1);
  writer.sync();  // nothing to do
  EXPECT_EQ(syncs_made, syncs + 1);
}

TEST_F(JournalWriterTest, WritesAfterTheDelay) {
  JournalLimits limits = only_when_asked();
  limits.delay = 20ms;
  JournalWriter writer(path("j"), limits);
  writer.append(4, row_of(4));
  EXPECT_TRUE(has("j", line_of(4)));
}

TEST_F(JournalWriterTest, WritesAfterSoManyRows) {
  JournalLimits limits;
  limits.delay = 1h;
  JournalWriter writer(path("j"), limits);
  std::string expected;
  for (std::uint64_t i = 0; i < 63; ++i) {
    writer.append(i, row_of(i));
    expected += line_of(i);
  }
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(content("j"), "");
  const int syncs = syncs_made;
  writer.append(63, row_of(63));
  EXPECT_TRUE(has("j", expected + line_of(63)));
  EXPECT_TRUE(comes_true([&] { return syncs_made > syncs; }));
}

TEST_F(JournalWriterTest, AbandonedRowsAreNotWritten) {
  {
    JournalWriter writer(path("j"), {std::chrono::hours(1)});
    writer.append(0, row_of(0));
    writer.sync();
    writer.append(1, row_of(1));
    writer.abandon();
  }
  EXPECT_EQ(content("j"), line_of(0));
}

TEST_F(JournalWriterTest, HurriesWhenAsked) {
  JournalWriter writer(path("j"), only_when_asked());
  writer.hurry();
  writer.append(4, row_of(4));
  writer.hurry();
  const int syncs = syncs_made;
  EXPECT_TRUE(has("j", line_of(4)));
  EXPECT_TRUE(comes_true([&] { return syncs_made >= syncs; }));
}

TEST_F(JournalWriterTest, ManyThreads) {
  constexpr std::uint64_t kThreads = 4;
  constexpr std::uint64_t kRows = 500;
  JournalLimits limits;
  limits.rows = 3;
  limits.waiting_bytes = 1000;
  {
    JournalWriter writer(path("j"), limits);
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&writer, t] {
        for (std::uint64_t i = t; i < kRows; i += kThreads) {
          writer.append(i, row_of(i));
          if (i % 7 == 0) writer.hurry();
          if (i % 50 == 0) writer.sync();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  const auto rows = read("j");
  EXPECT_EQ(rows.size(), kRows + 1);
  EXPECT_EQ(std::set<std::string>(rows.begin(), rows.end()).size(), kRows + 1);
  EXPECT_EQ(rows.back(), "0 damaged");
}

TEST_F(JournalWriterTest, AShortWriteIsTakenUpOnANewLine) {
  const auto size = static_cast<std::uint64_t>(line_of(0).size());
  JournalWriter writer(path("j"), only_when_asked());
  writer.append(0, row_of(0));
  writer.append(1, row_of(1));
  writer.append(2, row_of(2));
  {
    const FullDisk full(size + 10);
    EXPECT_EQ(message_of([&] { writer.sync(); }), path("j") + ": cannot write: File too large");
    EXPECT_EQ(content("j"), line_of(0) + line_of(1).substr(0, 10));
    writer.append(3, row_of(3));
    EXPECT_EQ(message_of([&] { writer.sync(); }), path("j") + ": cannot write: File too large");
  }
  writer.sync();
  EXPECT_EQ(content("j"), line_of(0) + line_of(1).substr(0, 10) + "\n" + line_of(0) + line_of(1) +
                              line_of(2) + line_of(3));
  EXPECT_THAT(read("j"), ElementsAre("0", "0", "1", "2", "3", "1 damaged"));
  writer.append(4, row_of(4));
  writer.sync();
  EXPECT_TRUE(content("j").ends_with(line_of(3) + line_of(4)));
}

TEST_F(JournalWriterTest, AFailedSyncIsNotForgotten) {
  JournalWriter writer(path("j"), only_when_asked());
  writer.append(0, row_of(0));
  writer.append_partial(1, std::vector<std::int32_t>{5});
  syncs_to_fail = 1;
  EXPECT_EQ(message_of([&] { writer.sync(); }), path("j") + ": cannot sync: Input/output error");
  const int syncs = syncs_made;
  // A later sync of the same file succeeds on Linux though the bytes are lost.
  writer.sync();
  EXPECT_EQ(syncs_made, syncs + 1);
  EXPECT_THAT(read("j"), ElementsAre("0", "1: 5", "0", "1: 5", "0 damaged"));
}

TEST_F(JournalWriterTest, TheThreadsFailureIsThrownOnceByTheNextCall) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  JournalWriter writer("/dev/full", at_once());
  writer.append(0, row_of(0));
  const std::string full = "/dev/full: cannot write: No space left on device";
  std::string found;
  EXPECT_TRUE(comes_true([&] {
    found = message_of([&] { writer.append_partial(1, std::vector<std::int32_t>{}); });
    return found != "no error";
  }));
  EXPECT_EQ(found, full);
  EXPECT_EQ(message_of([&] { writer.sync(); }), full);
}

TEST_F(JournalWriterTest, WhatAFullDiskRefusedIsWrittenAtTheEnd) {
  {
    JournalWriter writer(path("j"), at_once());
    syncs_to_fail = 1;
    writer.append(0, row_of(0));
    EXPECT_TRUE(comes_true([] { return syncs_to_fail == 0; }));
  }
  EXPECT_THAT(read("j"), ElementsAre("0", "0", "0 damaged"));
}

// A pipe that nobody reads is a file system that hangs.
TEST_F(JournalWriterTest, WaitsForAFileSystemWithPatience) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const int reader = ::open(path("pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  JournalLimits limits;
  limits.waiting_bytes = 1u << 20;
  limits.patience = 100ms;
  const std::string text(300'000, 'x');
  {
    JournalWriter writer(path("pipe"), limits);
    EXPECT_THAT(message_of([&] {
                  for (std::uint64_t i = 0; i < 100; ++i) writer.append(i, row_of(i, text));
                }),
                AllOf(HasSubstr(path("pipe") + ": "),
                      HasSubstr("bytes of rows wait to be written, and the file system has taken "
                                "none for 0.1 s")));
    EXPECT_THAT(message_of([&] { writer.sync(); }), HasSubstr("has taken none for 0.1 s"));
    // Its end does not hang either.
  }
  ::close(reader);  // the thread that was left behind gets EPIPE and ends
}

TEST_F(JournalWriterTest, GoesOnAsSoonAsThereIsRoom) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const int reader = ::open(path("pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  JournalLimits limits;
  limits.waiting_bytes = 1u << 20;
  const std::string text(300'000, 'x');
  std::string expected;
  for (std::uint64_t i = 0; i < 20; ++i) expected += line_of(i, text);
  std::thread slow([&] {
    JournalWriter writer(path("pipe"), limits);
    for (std::uint64_t i = 0; i < 20; ++i) writer.append(i, row_of(i, text));
  });
  std::string found(expected.size(), '\0');
  std::size_t size = 0;
  EXPECT_TRUE(comes_true([&] {
    ssize_t count = 0;
    while (size < found.size() &&
           (count = ::read(reader, found.data() + size, found.size() - size)) > 0) {
      size += static_cast<std::size_t>(count);
    }
    return size == found.size();
  }));
  slow.join();
  ::close(reader);
  EXPECT_TRUE(found == expected);
}

TEST_F(JournalWriterTest, TheThreadTakesNoSignals) {
  // Signals that the program waits for elsewhere must not end up in the writer's thread.
  JournalWriter writer(path("j"));
  int blocked = 0;
  int threads = 0;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(thread.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (!line.starts_with("SigBlk:")) continue;
      ++threads;
      const std::uint64_t mask = std::stoull(line.substr(7), nullptr, 16);
      const auto has = [&](int signal) { return (mask >> (signal - 1) & 1) != 0; };
      if (has(SIGTERM) && has(SIGINT) && has(SIGUSR1) && has(SIGXFSZ)) ++blocked;
    }
  }
  EXPECT_GE(threads, 2);
  EXPECT_GE(blocked, 1);
  sigset_t mine;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &mine);
  EXPECT_FALSE(::sigismember(&mine, SIGTERM));
}

TEST_F(JournalWriterTest, FoldersThatAreNotThere) {
  EXPECT_THAT(message_of([&] { JournalWriter(path("no/folder")); }),
              HasSubstr("no/folder: cannot open: No such file"));
}

}  // namespace
}  // namespace penstock::io
