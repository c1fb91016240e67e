#include "jobs/job_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "io/error.hpp"
#include "tests/jobs/job_folder_fixture.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST_F(JobFolderTest, LiesBesideTheOutput) {
  const JobFolder folder(output(), false, {});
  EXPECT_EQ(folder.path(), output() + ".job");
  EXPECT_EQ(folder.file("index"), output() + ".job/index");
  EXPECT_TRUE(fs::is_directory(folder.path()));
  EXPECT_FALSE(fs::exists(output()));
}

TEST_F(JobFolderTest, NameWithoutAFolderIsInTheWorkingOne) {
  const fs::path before = fs::current_path();
  fs::current_path(here_);
  {
    const JobFolder folder("out", false, {});
    EXPECT_TRUE(fs::is_directory(here_ / "out.job"));
  }
  fs::current_path(before);
  EXPECT_EQ(names(), Names{});
}

TEST_F(JobFolderTest, AnAbandonedJobLeavesNothing) {
  {
    const JobFolder folder(output(), false, {});
    EXPECT_FALSE(folder.resumes());
    for (const char* name : {"index", "input"}) std::ofstream(folder.new_file(name)) << "x";
  }
  EXPECT_EQ(names(), Names{});
  // Where the folder was there before, it stays, with what is no new file.
  write("answers.jsonl.job/index", "of a killed begin()");
  {
    const JobFolder folder(output(), false, {});
    std::ofstream(folder.new_file("index")) << "x";
  }
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "answers.jsonl.job/index"}));
}

TEST_F(JobFolderTest, NewFilesGetTheirNamesWhenTheJobBegins) {
  JobFolder folder(output(), false, {});
  std::ofstream(folder.new_file("index")) << "of this job";
  std::ofstream(folder.new_file("input")) << "spooled";
  EXPECT_FALSE(fs::exists(folder.file("index")));
  folder.begin();
  EXPECT_EQ(read("answers.jsonl.job/index"), "of this job");
  EXPECT_EQ(read("answers.jsonl.job/input"), "spooled");
  EXPECT_EQ(names(),
            (Names{"answers.jsonl.job", "answers.jsonl.job/index", "answers.jsonl.job/input"}));
}

TEST_F(JobFolderTest, AJobThatBeganStays) {
  {
    JobFolder folder(output(), false, {});
    folder.begin();
    folder.write_state(JobState::running, {});
  }
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "answers.jsonl.job/state"}));
}

TEST_F(JobFolderTest, AnOutputThatIsThereIsRefusedAndUntouched) {
  write("answers.jsonl", "precious");
  EXPECT_THAT(made(false), ThrowsMessage<io::FileError>(
                               AllOf(HasSubstr(output() + ": "), HasSubstr("--fresh"))));
  EXPECT_EQ(read("answers.jsonl"), "precious");
  EXPECT_EQ(names(), Names{"answers.jsonl"});
}

// Answers of a job that never began, or of something else.
TEST_F(JobFolderTest, AnOutputBesideAJobThatNeverBeganIsRefused) {
  write("answers.jsonl", "precious");
  write("answers.jsonl.job/state");
  EXPECT_THAT(made(false), ThrowsMessage<io::FileError>(
                               AllOf(HasSubstr(output() + ": "), HasSubstr("--fresh"))));
  EXPECT_EQ(read("answers.jsonl"), "precious");
  EXPECT_EQ(names(), (Names{"answers.jsonl", "answers.jsonl.job", "answers.jsonl.job/state"}));
}

TEST_F(JobFolderTest, AnEarlierJobGoesOn) {
  write_job();
  const Names before = names();
  {
    JobFolder folder(output(), false, {});
    EXPECT_TRUE(folder.resumes());
    EXPECT_FALSE(folder.has_output());
    EXPECT_EQ(names(), before);
    folder.begin();
  }
  EXPECT_EQ(names(), before);
  for (const std::string& name : before) {
    if (name == "answers.jsonl.job") continue;
    EXPECT_EQ(read(name), "earlier") << name;
  }
  write("answers.jsonl", "precious");
  JobFolder folder(output(), false, {});
  EXPECT_TRUE(folder.resumes());
  EXPECT_TRUE(folder.has_output());
  folder.begin();
  EXPECT_EQ(read("answers.jsonl"), "precious");
}

// Without manifest.json it never began, whatever else is there: a new job takes it over.
TEST_F(JobFolderTest, AJobThatNeverBeganIsTaken) {
  write_job();
  write("answers.jsonl.job/flight-0003.log");
  write("answers.jsonl.job/index.new", "half");
  fs::remove(at("answers.jsonl.job/manifest.json"));
  JobFolder folder(output(), false, {});
  EXPECT_FALSE(folder.resumes());
  std::ofstream(folder.new_file("index")) << "whole";
  folder.begin();
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "answers.jsonl.job/index"}));
  EXPECT_EQ(read("answers.jsonl.job/index"), "whole");
}

// What a run makes anew of a job that goes on replaces the old when it begins, not before.
TEST_F(JobFolderTest, AJobThatGoesOnMayGetNewFiles) {
  write_job();
  write("answers.jsonl.job/notes.new", "not ours");
  for (const bool begins : {false, true}) {
    JobFolder folder(output(), false, {});
    std::ofstream(folder.new_file("index")) << "made again";
    if (begins) folder.begin();
  }
  EXPECT_EQ(read("answers.jsonl.job/index"), "made again");
  EXPECT_EQ(read("answers.jsonl.job/journal-0000.jsonl"), "earlier");
  EXPECT_EQ(read("answers.jsonl.job/notes.new"), "not ours");
}

TEST_F(JobFolderTest, AnEmptyFolderIsTaken) {
  fs::create_directory(at("answers.jsonl.job"));
  {
    const JobFolder folder(output(), false, {});
    EXPECT_FALSE(folder.resumes());
  }
  EXPECT_EQ(names(), Names{"answers.jsonl.job"});
}

// What a killed run left of its own making does not come into the next job.
TEST_F(JobFolderTest, NewFilesOfAKilledRunAreNotTaken) {
  write("answers.jsonl.job/input.new", "the standard input of another job");
  JobFolder folder(output(), false, {});
  std::ofstream(folder.new_file("index")) << "x";
  folder.begin();
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "answers.jsonl.job/index"}));
}

// That a second job is refused takes ten seconds to see: job_lock_test, tests/app/resume_test.
TEST_F(JobFolderTest, TheLockIsHeldAsLongAsTheJob) {
  write_job();
  {
    const JobFolder folder(output(), false, {});
    EXPECT_TRUE(fs::exists(folder.file("lock")));
    EXPECT_FALSE(folder.lost());
    folder.check_lock();
    fs::remove(folder.file("lock"));
    EXPECT_THROW(folder.check_lock(), io::FileError);
    EXPECT_TRUE(folder.lost());
  }
  { const JobFolder folder(output(), false, {}); }
  EXPECT_FALSE(fs::exists(at("answers.jsonl.job/lock")));
}

// What is in the folder is then another job's.
TEST_F(JobFolderTest, AJobThatLostItsLockTouchesNothing) {
  write("answers.jsonl", "precious");
  write_job();
  {
    JobFolder folder(output(), true, {});
    fs::rename(folder.file("lock"), at("lock of before"));
    JobFolder other(output(), false, {});
    std::ofstream(other.new_file("index")) << "the other's";
    EXPECT_THROW(folder.begin(), io::FileError);
    other.begin();
  }
  EXPECT_EQ(read("answers.jsonl"), "precious");
  EXPECT_EQ(read("answers.jsonl.job/index"), "the other's");
  {
    JobFolder folder(at("new"), false, {});
    fs::rename(folder.file("lock"), at("lock of before"));
    EXPECT_THROW(folder.check_lock(), io::FileError);
    write("new.job/index.new", "the other's");
  }
  EXPECT_EQ(read("new.job/index.new"), "the other's");
}

TEST_F(JobFolderTest, OutputThatIsALink) {
  fs::create_directory(at("scratch"));
  fs::create_symlink("scratch/a", output());
  {
    JobFolder folder(output(), false, {});
    folder.begin();
    EXPECT_EQ(folder.path(), output() + ".job");
  }
  fs::remove(at("answers.jsonl.job"));
  write("scratch/a", "precious");
  EXPECT_THAT(made(false),
              ThrowsMessage<io::FileError>(HasSubstr("scratch/a: exists already; --fresh")));
  JobFolder folder(output(), true, {});
  EXPECT_EQ(read("scratch/a"), "precious");
  folder.begin();
  EXPECT_FALSE(fs::exists(at("scratch/a")));
  EXPECT_TRUE(fs::is_symlink(output()));
}

TEST_F(JobFolderTest, OutputThatIsAFolderIsRefused) {
  write("answers.jsonl/file");
  for (const bool fresh : {false, true}) {
    EXPECT_THAT(made(fresh), ThrowsMessage<io::FileError>(HasSubstr("is a folder")));
  }
  EXPECT_EQ(names(), (Names{"answers.jsonl", "answers.jsonl/file"}));
  fs::remove(at("answers.jsonl/file"));  // an empty one could be removed by mistake
  EXPECT_THROW(made(true)(), io::FileError);
  EXPECT_EQ(names(), Names{"answers.jsonl"});
}

TEST_F(JobFolderTest, OutputThatIsNoRegularFileIsNeverRemoved) {
  ASSERT_EQ(::mkfifo(output().c_str(), 0600), 0);
  for (const bool fresh : {false, true}) {
    EXPECT_THAT(made(fresh), ThrowsMessage<io::FileError>(HasSubstr("not a regular file")));
  }
  EXPECT_EQ(names(), Names{"answers.jsonl"});
}

TEST_F(JobFolderTest, ParentThatCannotBeWrittenTo) {
  EXPECT_THAT([&] { JobFolder(at("missing/out"), false, {}); },
              ThrowsMessage<io::FileError>(HasSubstr("missing/out.job: cannot be created")));
  write("file");
  EXPECT_THAT([&] { JobFolder(at("file/out"), false, {}); },
              ThrowsMessage<io::FileError>(HasSubstr("cannot be created")));
  EXPECT_THAT([&] { JobFolder(at(std::string(300, 'n')), false, {}); },
              ThrowsMessage<io::FileError>(HasSubstr("nnn")));
  EXPECT_THAT([&] { JobFolder(at(std::string(300, 'n')), true, {}); },
              ThrowsMessage<io::FileError>(HasSubstr("nnn")));
  if (::geteuid() == 0) return;  // root may write anywhere
  fs::permissions(here_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_THAT(made(false), ThrowsMessage<io::FileError>(HasSubstr("Permission denied")));
  fs::permissions(here_, fs::perms::owner_all);
}

TEST_F(JobFolderTest, StateIsOneObjectThatScriptsCanRead) {
  const JobFolder folder(output(), false, {});
  const std::pair<JobState, const char*> states[] = {{JobState::running, "running"},
                                                     {JobState::again, "again"},
                                                     {JobState::done, "done"},
                                                     {JobState::errors, "errors"},
                                                     {JobState::broken, "broken"}};
  for (const auto& [state, name] : states) {
    EXPECT_EQ(to_string(state), name);
    folder.write_state(state, {1ull << 40, 3, 7, 11});
    EXPECT_EQ(json::parse(read("answers.jsonl.job/state")), (json{{"state", name},
                                                                  {"finished", 1ull << 40},
                                                                  {"failed", 3},
                                                                  {"left", 7},
                                                                  {"partial_tokens", 11}}));
  }
  // Replaced by rename: nothing else is left.
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "answers.jsonl.job/state"}));
}

TEST_F(JobFolderTest, JsonThatIsReadBack) {
  const JobFolder folder(output(), false, {});
  folder.write_json("manifest.json", {{"schema", 1}});
  EXPECT_EQ(folder.read_json("manifest.json"), (json{{"schema", 1}}));
  const std::string deep(100'000, '[');
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[1]"), std::string("null"), std::string("7"),
        std::string("{\"a\": 1e999}"), std::string(4096, '\0'), "{\"a\": " + deep, deep,
        std::string("{\"a\": \"\xff\"}"), std::string("{} {}")}) {
    SCOPED_TRACE(text.substr(0, 40));
    write("answers.jsonl.job/manifest.json", text);
    EXPECT_THAT([&] { folder.read_json("manifest.json"); },
                ThrowsMessage<io::FileError>(
                    AllOf(HasSubstr("answers.jsonl.job/manifest.json: "), HasSubstr("--fresh"))));
  }
  EXPECT_THAT([&] { folder.read_json("ledger.json"); },
              ThrowsMessage<io::FileError>(HasSubstr("answers.jsonl.job/ledger.json: ")));
}

// Killed in the merge, a run leaves what it wrote; the next one of the job takes it away.
TEST_F(JobFolderTest, UnfinishedOutputsOfTheJobAreRemoved) {
  const Names theirs = {"answers.jsonl.0123abcd.tmp.txt", "answers.jsonl.0123ABCD.tmp",
                        "other.jsonl.0123abcd.tmp", "answers.jsonl.tmp"};
  for (const std::string& name : theirs) write(name);
  write("answers.jsonl.0123abcd.tmp");
  { const JobFolder folder(output(), false, {}); }  // of no job that is known
  EXPECT_TRUE(fs::exists(at("answers.jsonl.0123abcd.tmp")));
  write("answers.jsonl.job/manifest.json", "{}");
  { const JobFolder folder(output(), false, {}); }
  Names left = theirs;
  left.insert({"answers.jsonl.job", "answers.jsonl.job/manifest.json"});
  EXPECT_EQ(names(), left);
}

}  // namespace
}  // namespace penstock::jobs
