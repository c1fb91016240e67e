#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/error.hpp"
#include "tests/jobs/job_folder_fixture.hpp"

// What --fresh removes, and what it leaves alone.
namespace penstock::jobs {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST_F(JobFolderTest, FreshRemovesOutputAndJob) {
  write("answers.jsonl");
  write("other");
  write_job();
  for (const char* name : {"ledger.json", "input", "flight-0000.log"}) {
    write(std::string("answers.jsonl.job/") + name);
  }
  JobFolder folder(output(), true, {});
  EXPECT_FALSE(folder.resumes());
  folder.begin();
  EXPECT_EQ(folder.path(), output() + ".job");
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "other"}));
}

TEST_F(JobFolderTest, FreshRemovesNothingBeforeTheJobBegins) {
  write("answers.jsonl", "precious");
  write_job();
  const Names before = names();
  {
    const JobFolder folder(output(), true, {});
    EXPECT_FALSE(folder.resumes());
    std::ofstream(folder.new_file("index")) << "x";
    EXPECT_EQ(read("answers.jsonl.job/index"), "earlier");
  }
  EXPECT_EQ(read("answers.jsonl"), "precious");
  EXPECT_EQ(read("answers.jsonl.job/index"), "earlier");
  EXPECT_EQ(names(), before);
}

TEST_F(JobFolderTest, FilesThatAreOpenStayOpen) {
  write_job();
  JobFolder folder(output(), true, {});
  std::ofstream index(folder.new_file("index"));
  folder.begin();
  index << "entries" << std::flush;
  EXPECT_EQ(read("answers.jsonl.job/index"), "entries");
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "answers.jsonl.job/index"}));
}

TEST_F(JobFolderTest, FreshOnNothingIsFine) {
  const JobFolder folder(output(), true, {});
  EXPECT_EQ(names(), Names{"answers.jsonl.job"});
}

// A run that is killed while it replaces a file, or while it merges.
TEST_F(JobFolderTest, FreshRemovesWhatAKilledRunLeft) {
  write("answers.jsonl.job/state.0123abcd.tmp");
  write("answers.jsonl.job/manifest.json.ffffffff.tmp");
  write("answers.jsonl.job/merge.aB3dE6");
  JobFolder folder(output(), true, {});
  folder.begin();
  EXPECT_EQ(names(), Names{"answers.jsonl.job"});
}

// They may lie beside a job, but a folder that holds only them is not a job's.
TEST_F(JobFolderTest, TheFilesOfOthersStay) {
  for (const char* theirs :
       {"notes.txt", "results/index", "state.bak", "mine.0123abcd.tmp", "state.0123abcd.tmp.tmp",
        "state.0123ABCD.tmp", "merge.toolong1", "merge.a/b", "journal-0001.jsonl2"}) {
    SCOPED_TRACE(theirs);
    const std::string name = std::string("answers.jsonl.job/") + theirs;
    write("answers.jsonl.job/index", "theirs too, perhaps");
    write(name, "precious");
    const std::string shown = "holds '" + fs::path(theirs).begin()->string() + "'";
    for (const bool fresh : {false, true}) {
      EXPECT_THAT(made(fresh), ThrowsMessage<io::FileError>(
                                   AllOf(HasSubstr("answers.jsonl.job: "), HasSubstr(shown))));
      EXPECT_EQ(read(name), "precious");
      EXPECT_TRUE(fs::exists(at("answers.jsonl.job/index")));
    }
    write_job();
    for (const bool fresh : {false, true}) {
      JobFolder folder(output(), fresh, {});
      EXPECT_EQ(folder.resumes(), !fresh);
      folder.begin();
      EXPECT_EQ(read(name), "precious");
    }
    EXPECT_FALSE(fs::exists(at("answers.jsonl.job/index")));
    fs::remove_all(at("answers.jsonl.job"));
  }
}

TEST_F(JobFolderTest, AFileInTheFoldersPlaceIsNotRemoved) {
  write("answers.jsonl.job", "precious");
  EXPECT_THROW(made(false)(), io::FileError);
  EXPECT_THROW(made(true)(), io::FileError);
  EXPECT_EQ(read("answers.jsonl.job"), "precious");
}

TEST_F(JobFolderTest, ALinkInTheJobIsRemovedNotWhatItNames) {
  write("input", "precious");
  fs::create_directory(at("answers.jsonl.job"));
  fs::create_symlink(at("input"), at("answers.jsonl.job/input"));
  JobFolder folder(output(), true, {});
  folder.begin();
  EXPECT_EQ(read("input"), "precious");
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "input"}));
}

// The folder stands beside the link; what the link leads to is the output.

}  // namespace
}  // namespace penstock::jobs
