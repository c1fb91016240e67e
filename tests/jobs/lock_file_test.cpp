#include "jobs/lock_file.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "io/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace penstock::jobs {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

class LockFileTest : public testing::Test {
 protected:
  // Another process' lock, put in the place of what is there in one step.
  void replace(const std::string& bytes) const {
    folder_.write("other", bytes);
    fs::rename((folder_ / "other"), (folder_ / "lock"));
  }
  const tests::TemporaryFolder folder_;
  const LockFile lock_{folder_.path()};
};

TEST_F(LockFileTest, IsMadeOnce) {
  EXPECT_FALSE(lock_.read());
  EXPECT_TRUE(lock_.create("mine"));
  EXPECT_FALSE(lock_.create("yours"));
  EXPECT_EQ(lock_.read()->bytes, "mine");
  EXPECT_THAT(folder_.names(), ElementsAre("lock"));  // nothing temporary stays
}

TEST_F(LockFileTest, IsWrittenInPlaceByItsOwnerOnly) {
  const auto mine = [](std::string_view bytes) { return bytes.starts_with("mine"); };
  EXPECT_FALSE(lock_.update("mine2", mine));
  ASSERT_TRUE(lock_.create("mine1"));
  EXPECT_TRUE(lock_.update("mine2", mine));
  EXPECT_EQ(folder_.read("lock"), "mine2");
  replace("yours");
  EXPECT_FALSE(lock_.update("mine3", mine));
  EXPECT_EQ(folder_.read("lock"), "yours");
}

TEST_F(LockFileTest, WritingNeverReachesTheFileOfAnother) {
  ASSERT_TRUE(lock_.create("mine1"));
  EXPECT_TRUE(lock_.update("mine2", [&](std::string_view) {
    replace("yours");  // between looking and writing
    return true;
  }));
  EXPECT_EQ(folder_.read("lock"), "yours");
}

TEST_F(LockFileTest, WritingChangesItsTime) {
  ASSERT_TRUE(lock_.create("mine"));
  fs::last_write_time((folder_ / "lock"), fs::file_time_type::clock::now() - std::chrono::hours(2));
  const auto before = lock_.read();
  EXPECT_GT(lock_.server_time_ns() - before->mtime_ns, 7'000'000'000'000);
  EXPECT_TRUE(lock_.update("mine", [](std::string_view) { return true; }));
  EXPECT_NE(*lock_.read(), *before);
  EXPECT_LT(lock_.server_time_ns() - lock_.read()->mtime_ns, 3'600'000'000'000);
  EXPECT_THAT(folder_.names(), ElementsAre("lock"));
}

TEST_F(LockFileTest, AnyTimeIsTaken) {
  ASSERT_TRUE(lock_.create("mine"));
  for (const std::int64_t seconds : {std::int64_t{-2'000'000'000}, std::int64_t{1} << 33}) {
    const timespec times[2] = {{seconds, 0}, {seconds, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, (folder_ / "lock").c_str(), times, 0), 0);
    EXPECT_GE(lock_.read()->mtime_ns, 0);
  }
}

TEST_F(LockFileTest, TheOneThatWasSeenIsRemovedOrReplaced) {
  EXPECT_FALSE(lock_.remove({"mine", 0, 7}));  // there is none
  ASSERT_TRUE(lock_.create("mine"));
  LockFile::Content yours = *lock_.read();
  yours.bytes = "yours";
  EXPECT_FALSE(lock_.remove(yours));
  EXPECT_FALSE(lock_.replace(yours, "new"));
  EXPECT_EQ(folder_.read("lock"), "mine");
  EXPECT_TRUE(lock_.replace(*lock_.read(), "new"));
  EXPECT_EQ(folder_.read("lock"), "new");
  EXPECT_THAT(folder_.names(), ElementsAre("lock"));
  EXPECT_TRUE(lock_.remove(*lock_.read()));
  EXPECT_THAT(folder_.names(), IsEmpty());
}

TEST_F(LockFileTest, ALockMadeAfterLookingStays) {
  ASSERT_TRUE(lock_.create("old"));
  const LockFile::Content seen = *lock_.read();
  replace("new");
  EXPECT_FALSE(lock_.replace(seen, "late"));
  EXPECT_FALSE(lock_.remove(seen));
  EXPECT_EQ(folder_.read("lock"), "new");
  EXPECT_THAT(folder_.names(), ElementsAre("lock"));
}

// Whoever made the claim may be about to act on it.
TEST_F(LockFileTest, OnlyOneActsOnTheSameLock) {
  ASSERT_TRUE(lock_.create("old"));
  const LockFile::Content seen = *lock_.read();
  const std::string claim = folder_ / ("lock." + std::to_string(seen.inode) + ".claim");
  std::filesystem::create_hard_link(folder_ / "lock", claim);
  EXPECT_FALSE(lock_.replace(seen, "second"));
  EXPECT_FALSE(lock_.remove(seen));
  EXPECT_EQ(folder_.read("lock"), "old");
  EXPECT_TRUE(std::filesystem::exists(claim)) << "it is not a minute old";
}

TEST_F(LockFileTest, FolderMayBeRenamed) {
  ASSERT_TRUE(lock_.create("mine"));
  const std::string elsewhere = folder_.path() + "_renamed";
  fs::rename(folder_.path(), elsewhere);
  EXPECT_EQ(lock_.read()->bytes, "mine");
  EXPECT_TRUE(lock_.remove(*lock_.read()));
  EXPECT_TRUE(fs::is_empty(elsewhere));
  fs::rename(elsewhere, folder_.path());
}

TEST_F(LockFileTest, LongContentIsCut) {
  folder_.write("lock", std::string(1'000'000, 'x'));
  EXPECT_EQ(lock_.read()->bytes.size(), LockFile::kMaxBytes);
}

TEST_F(LockFileTest, FollowsTheUmask) {
  const mode_t before = umask(027);
  EXPECT_TRUE(lock_.create("mine"));
  umask(before);
  EXPECT_EQ(fs::status((folder_ / "lock")).permissions(), fs::perms(0640));
}

TEST_F(LockFileTest, RefusesWhatIsNoFile) {
  const auto refused = ThrowsMessage<io::FileError>(
      AllOf(HasSubstr(folder_.path()), HasSubstr("is no regular file"), HasSubstr("remove it")));
  folder_.write("target", "text");
  fs::create_symlink("target", (folder_ / "lock"));
  EXPECT_THAT([&] { lock_.read(); }, refused);
  EXPECT_THAT([&] { lock_.update("x", [](std::string_view) { return true; }); }, refused);
  EXPECT_EQ(folder_.read("target"), "text");
  fs::remove((folder_ / "lock"));
  fs::create_symlink("/nowhere", (folder_ / "lock"));
  EXPECT_THAT([&] { lock_.read(); }, refused);
  fs::remove((folder_ / "lock"));
  fs::create_directory((folder_ / "lock"));
  EXPECT_THAT([&] { lock_.read(); }, refused);
  fs::remove((folder_ / "lock"));
  ASSERT_EQ(mkfifo((folder_ / "lock").c_str(), 0600), 0);
  EXPECT_THAT([&] { lock_.read(); }, refused);  // and does not wait for a writer
}

TEST_F(LockFileTest, FolderMustBeThere) {
  EXPECT_THAT([&] { LockFile((folder_ / "absent")); },
              ThrowsMessage<io::FileError>(
                  AllOf(HasSubstr("absent"), HasSubstr("No such file or directory"))));
  fs::remove(folder_.path());
  EXPECT_THAT([&] { lock_.create("mine"); }, testing::Throws<io::FileError>());
}

}  // namespace
}  // namespace penstock::jobs
