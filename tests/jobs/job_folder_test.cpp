#include "jobs/job_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "io/error.hpp"

namespace penstock::jobs {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

class JobFolderTest : public testing::Test {
 protected:
  JobFolderTest()
      : here_(testing::TempDir() + "/penstock_job_folder_" +
              testing::UnitTest::GetInstance()->current_test_info()->name() + "_" +
              std::to_string(::getpid())) {
    fs::create_directory(here_);
  }
  ~JobFolderTest() override {
    std::error_code ignored;
    fs::remove_all(here_, ignored);
  }

  std::string at(const std::string& name) const { return (here_ / name).string(); }
  std::string output() const { return at("answers.jsonl"); }

  void write(const std::string& name, const std::string& text = "x") const {
    fs::create_directories(fs::path(at(name)).parent_path());
    std::ofstream(at(name)) << text;
  }
  std::string read(const std::string& name) const {
    std::ifstream file(at(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // All that is in the test's folder.
  std::set<std::string> names() const {
    std::set<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(here_)) {
      found.insert(fs::relative(entry.path(), here_).string());
    }
    return found;
  }

  auto made(bool fresh) const {
    return [this, fresh] { JobFolder(output(), fresh); };
  }

  const fs::path here_;
};

using Names = std::set<std::string>;

TEST_F(JobFolderTest, LiesBesideTheOutput) {
  const JobFolder folder(output(), false);
  EXPECT_EQ(folder.path(), output() + ".job");
  EXPECT_EQ(folder.file("index"), output() + ".job/index");
  EXPECT_TRUE(fs::is_directory(folder.path()));
  EXPECT_FALSE(fs::exists(output()));
}

TEST_F(JobFolderTest, NameWithoutAFolderIsInTheWorkingOne) {
  const fs::path before = fs::current_path();
  fs::current_path(here_);
  {
    const JobFolder folder("out", false);
    EXPECT_TRUE(fs::is_directory(here_ / "out.job"));
  }
  fs::current_path(before);
  EXPECT_EQ(names(), Names{});
}

TEST_F(JobFolderTest, AnAbandonedJobLeavesNothing) {
  {
    const JobFolder folder(output(), false);
    for (const char* name : {"index", "journal-0000.jsonl", "input"}) {
      std::ofstream(folder.file(name)) << "x";
    }
    folder.write_state(JobState::running, {});
    folder.write_json("manifest.json", json::object());
    folder.write_json("ledger.json", json::object());
  }
  EXPECT_EQ(names(), Names{});
}

TEST_F(JobFolderTest, AKeptJobStays) {
  {
    JobFolder folder(output(), false);
    folder.write_state(JobState::running, {});
    folder.begin();
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

TEST_F(JobFolderTest, AnEarlierJobIsRefusedAndUntouched) {
  write("answers.jsonl.job/state", "{}");
  EXPECT_THAT(made(false), ThrowsMessage<io::FileError>(
                               AllOf(HasSubstr("answers.jsonl.job: "), HasSubstr("--fresh"))));
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "answers.jsonl.job/state"}));
  // Even an empty one: another job may have begun just now.
  fs::remove(at("answers.jsonl.job/state"));
  EXPECT_THROW(made(false)(), io::FileError);
  EXPECT_EQ(names(), Names{"answers.jsonl.job"});
}

TEST_F(JobFolderTest, FreshRemovesOutputAndJob) {
  write("answers.jsonl");
  write("other");
  for (const char* name :
       {"state", "manifest.json", "index", "journal-0000.jsonl", "ledger.json", "input"}) {
    write(std::string("answers.jsonl.job/") + name);
  }
  JobFolder folder(output(), true);
  folder.begin();
  EXPECT_EQ(folder.path(), output() + ".job");
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "other"}));
}

TEST_F(JobFolderTest, FreshRemovesNothingBeforeTheJobBegins) {
  write("answers.jsonl", "precious");
  write("answers.jsonl.job/state", "{}");
  {
    const JobFolder folder(output(), true);
    EXPECT_NE(folder.path(), output() + ".job");
    std::ofstream(folder.file("index")) << "x";
  }
  EXPECT_EQ(read("answers.jsonl"), "precious");
  EXPECT_EQ(names(), (Names{"answers.jsonl", "answers.jsonl.job", "answers.jsonl.job/state"}));
}

TEST_F(JobFolderTest, FilesThatAreOpenFollowTheFolder) {
  write("answers.jsonl.job/state", "{}");
  JobFolder folder(output(), true);
  std::ofstream journal(folder.file("journal-0000.jsonl"));
  folder.begin();
  journal << "row" << std::flush;
  EXPECT_EQ(read("answers.jsonl.job/journal-0000.jsonl"), "row");
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "answers.jsonl.job/journal-0000.jsonl"}));
}

TEST_F(JobFolderTest, FreshOnNothingIsFine) {
  const JobFolder folder(output(), true);
  EXPECT_EQ(names(), Names{"answers.jsonl.job"});
}

// A run that is killed while it replaces a file, or while it merges.
TEST_F(JobFolderTest, FreshRemovesWhatAKilledRunLeft) {
  write("answers.jsonl.job/state.0123abcd.tmp");
  write("answers.jsonl.job/manifest.json.ffffffff.tmp");
  write("answers.jsonl.job/merge.aB3dE6");
  JobFolder folder(output(), true);
  folder.begin();
  EXPECT_EQ(names(), Names{"answers.jsonl.job"});
}

TEST_F(JobFolderTest, FreshLeavesTheFilesOfOthers) {
  for (const char* theirs :
       {"notes.txt", "results/index", "state.bak", "mine.0123abcd.tmp", "state.0123abcd.tmp.tmp",
        "state.0123ABCD.tmp", "merge.toolong1", "merge.a/b", "journal-0001.jsonl2"}) {
    SCOPED_TRACE(theirs);
    const std::string name = std::string("answers.jsonl.job/") + theirs;
    write("answers.jsonl.job/index");
    write(name, "precious");
    EXPECT_THAT(made(true), ThrowsMessage<io::FileError>(
                                AllOf(HasSubstr("answers.jsonl.job: "), HasSubstr("of others"))));
    EXPECT_EQ(read(name), "precious");
    EXPECT_TRUE(fs::exists(at("answers.jsonl.job/index")));
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
  JobFolder folder(output(), true);
  folder.begin();
  EXPECT_EQ(read("input"), "precious");
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "input"}));
}

// The folder stands beside the link; what the link leads to is the output.
TEST_F(JobFolderTest, OutputThatIsALink) {
  fs::create_directory(at("scratch"));
  fs::create_symlink("scratch/a", output());
  {
    JobFolder folder(output(), false);
    folder.begin();
    EXPECT_EQ(folder.path(), output() + ".job");
  }
  fs::remove(at("answers.jsonl.job"));
  write("scratch/a", "precious");
  EXPECT_THAT(made(false),
              ThrowsMessage<io::FileError>(HasSubstr("scratch/a: exists already; --fresh")));
  JobFolder folder(output(), true);
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
  EXPECT_THAT([&] { JobFolder(at("missing/out"), false); },
              ThrowsMessage<io::FileError>(HasSubstr("missing/out.job: cannot be created")));
  write("file");
  EXPECT_THAT([&] { JobFolder(at("file/out"), false); },
              ThrowsMessage<io::FileError>(HasSubstr("cannot be created")));
  EXPECT_THAT([&] { JobFolder(at(std::string(300, 'n')), false); },
              ThrowsMessage<io::FileError>(HasSubstr("nnn")));
  EXPECT_THAT([&] { JobFolder(at(std::string(300, 'n')), true); },
              ThrowsMessage<io::FileError>(HasSubstr("nnn")));
  if (::geteuid() == 0) return;  // root may write anywhere
  fs::permissions(here_, fs::perms::owner_read | fs::perms::owner_exec);
  EXPECT_THAT(made(false), ThrowsMessage<io::FileError>(HasSubstr("Permission denied")));
  fs::permissions(here_, fs::perms::owner_all);
}

TEST_F(JobFolderTest, StateIsOneObjectThatScriptsCanRead) {
  const JobFolder folder(output(), false);
  const std::pair<JobState, const char*> states[] = {{JobState::running, "running"},
                                                     {JobState::done, "done"},
                                                     {JobState::errors, "errors"},
                                                     {JobState::broken, "broken"}};
  for (const auto& [state, name] : states) {
    EXPECT_EQ(to_string(state), name);
    folder.write_state(state, {1ull << 40, 3, 7});
    EXPECT_EQ(json::parse(read("answers.jsonl.job/state")),
              (json{{"state", name}, {"finished", 1ull << 40}, {"failed", 3}, {"left", 7}}));
  }
  // Replaced by rename: nothing else is left.
  EXPECT_EQ(names(), (Names{"answers.jsonl.job", "answers.jsonl.job/state"}));
}

}  // namespace
}  // namespace penstock::jobs
