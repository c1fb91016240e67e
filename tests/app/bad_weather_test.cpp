// What happens to a job's files while it runs, and between its runs: disks that fill up, folders
// that cannot be written, inputs that change. Nothing is lost: mended, the same command goes on.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/namespace.hpp"
#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

class BadWeather : public testing::Test {
 protected:
  void SetUp() override {
    std::string records;
    for (int i = 0; i < 400; ++i) {
      records += json{{"id", i}, {"prompt", "Mr. Darcy and " + std::to_string(i)}}.dump() + "\n";
    }
    workplace_.write("input.jsonl", records);
  }

  // The same command each time. Few records fit the KV memory together, so that reading goes on
  // through all of the job.
  std::string command(const std::string& output) const {
    return fmt::format(
        "{} run {} --input {} --output {} --max-tokens 40 --threads 1 --ignore-eos --kv-memory 1M "
        "--progress "
        "none --quiet",
        PENSTOCK_PROGRAM, kEmbeddedModel, input_, output);
  }

  std::string undisturbed() const {
    const std::string output = workplace_ / "undisturbed";
    const Finished run = bash(command(output) + " --fresh");
    EXPECT_EQ(run.code, 0) << run;
    return read_bytes(output);
  }

  static Finished bash(const std::string& script) { return start({"/bin/bash", "-c", script}); }

  // Starts the job, does something when it has begun (it is stopped meanwhile), waits for its end.
  Finished while_it_runs(const std::string& action) const {
    const std::string script =
        "{0} & job=$!\n"
        "until [ -s {1}.job/state ]; do kill -0 $job || break; sleep 0.01; done\n"
        "kill -STOP $job; {2}; kill -CONT $job; wait $job";
    return bash(fmt::format(fmt::runtime(script), command(output_), output_, action));
  }

  void interrupt() const {
    const Finished run = while_it_runs("kill -USR1 $job");
    ASSERT_EQ(run.code, 75) << run;
    ASSERT_EQ(state().at("state"), "again");
  }

  json state() const { return json::parse(read_bytes(output_ + ".job/state")); }

  void expect_refused(const Finished& run, const std::string& named) const {
    EXPECT_EQ(run.code, 1) << run;
    EXPECT_THAT(run.errors(), ElementsAre(HasSubstr(named))) << run;
  }

  TemporaryFolder workplace_;
  std::string input_ = workplace_ / "input.jsonl";
  std::string output_ = workplace_ / "output.jsonl";
};

// From one that cannot hold the index to one that lacks only the room for the merge.
TEST_F(BadWeather, DiskThatFillsUp) {
  if (!can_mount()) GTEST_SKIP() << "no file system can be mounted here";
  const std::string expected = undisturbed();
  const std::string disk = workplace_ / "disk";
  const std::string copy = workplace_ / "copy";
  fs::create_directory(disk);
  int begun = 0;
  for (const int kib : {4, 24, 72, 120, 150, 180}) {
    SCOPED_TRACE(kib);
    const Finished run = in_namespace(fmt::format(
        "mount -t tmpfs -o size={0}k none {1}\n{2}; echo code $?\n"
        "cp -r {1} {3}; mount -o remount,size=8m {1}\n{2}; echo code $?; cp {1}/out {3}/out",
        kib, disk, command(disk + "/out"), copy));
    EXPECT_EQ(run.out, "code 1\ncode 0\n") << run;
    EXPECT_THAT(run.errors(), ElementsAre(HasSubstr("No space left on device"))) << run;
    EXPECT_EQ(read_bytes(copy + "/out"), expected);
    if (fs::exists(copy + "/out.job/manifest.json")) {
      ++begun;
      // How far it came depends on the machine; what is there can be read, but for a torn line.
      const std::vector<std::string> rows =
          lines_of(read_bytes(copy + "/out.job/journal-0000.jsonl"));
      for (std::size_t i = 0; i + 1 < rows.size(); ++i)
        EXPECT_TRUE(json::accept(rows[i])) << rows[i];
    } else {
      EXPECT_FALSE(fs::exists(copy + "/out.job/journal-0000.jsonl"));
    }
    fs::remove_all(copy);
  }
  EXPECT_GT(begun, 1);
  EXPECT_LT(begun, 6);
}

// The spool of standard input has no end, but the disk has.
TEST_F(BadWeather, EndlessLine) {
  if (!can_mount()) GTEST_SKIP() << "no file system can be mounted here";
  const std::string disk = workplace_ / "disk";
  fs::create_directory(disk);
  input_ = "-";
  const Finished run =
      in_namespace("mount -t tmpfs -o size=2m none " + disk + "\n" + command(disk + "/out") +
                   " < /dev/zero; echo code $?; ls -A " + disk);
  EXPECT_EQ(run.out, "code 1\n") << run;
  EXPECT_THAT(run.errors(), ElementsAre(HasSubstr("No space left on device"))) << run;
}

TEST_F(BadWeather, OutputThatCannotBeWritten) {
  const std::string expected = undisturbed();
  if (can_mount()) {
    const std::string disk = workplace_ / "disk";
    fs::create_directory(disk);
    const Finished run =
        in_namespace("mount -t tmpfs -o ro none " + disk + "\n" + command(disk + "/out"));
    expect_refused(run, disk + "/out");
    EXPECT_THAT(run.err, HasSubstr("Read-only file system"));
  }
  fs::create_directory(output_);
  expect_refused(bash(command(output_)), output_ + ": is a folder");
  expect_refused(bash(command(output_ + "/")), output_);
  EXPECT_FALSE(fs::exists(output_ + ".job"));
  EXPECT_TRUE(fs::is_empty(output_));
  fs::remove(output_);

  workplace_.write("output.jsonl.job", "precious");
  expect_refused(bash(command(output_)), output_ + ".job: ");
  expect_refused(bash(command(output_) + " --fresh"), output_ + ".job: ");
  EXPECT_EQ(read_bytes(output_ + ".job"), "precious");
  fs::remove(output_ + ".job");

  expect_refused(bash("mkfifo " + output_ + "; " + command(output_) + " --fresh"),
                 output_ + ": is not a regular file");
  EXPECT_TRUE(fs::is_fifo(output_));
  fs::remove(output_);
  EXPECT_FALSE(fs::exists(output_ + ".job"));
}

TEST_F(BadWeather, InputThatIsRemovedWhileItIsRead) {
  const std::string expected = undisturbed();
  const Finished run = while_it_runs("rm " + input_);
  EXPECT_EQ(run.code, 0) << run;
  EXPECT_EQ(read_bytes(output_), expected);
}

TEST_F(BadWeather, InputThatChangesWhileItIsRead) {
  const std::string expected = undisturbed();
  const std::string original = workplace_ / "original.jsonl";
  ASSERT_EQ(bash("cp -p " + input_ + " " + original).code, 0);
  for (const std::string& action :
       {"truncate -s 2000 " + input_, "echo '{\"prompt\": 1}' >> " + input_,
        "head -c 500 " + input_ + " > " + input_ + ".new; mv " + input_ + ".new " + input_}) {
    SCOPED_TRACE(action);
    const Finished run = while_it_runs(action);
    expect_refused(run, input_);
    EXPECT_EQ(state().at("state"), "broken");
    EXPECT_FALSE(fs::exists(output_));

    ASSERT_EQ(bash("cp -p " + original + " " + input_).code, 0);
    const Finished again = bash(command(output_));
    EXPECT_EQ(again.code, 0) << again;
    EXPECT_EQ(read_bytes(output_), expected);
    fs::remove(output_);
    fs::remove_all(output_ + ".job");
  }
}

// Answers of the other content are in the journal then. Whatever is said and done, they must not
// get into an output that is called done for the old content.
TEST_F(BadWeather, InputThatIsAnotherForAWhile) {
  const std::string expected = undisturbed();
  const std::string original = workplace_ / "original.jsonl";
  const std::string edited = workplace_ / "edited.jsonl";
  ASSERT_EQ(bash("cp -p " + input_ + " " + original).code, 0);
  ASSERT_EQ(bash("sed s/Darcy/Bingl/ " + input_ + " > " + edited).code, 0);
  const Finished run = while_it_runs("cat " + edited + " > " + input_);
  expect_refused(run, input_);
  EXPECT_FALSE(fs::exists(output_));

  ASSERT_EQ(bash("cp -p " + original + " " + input_).code, 0);
  const Finished again = bash(command(output_));
  if (again.code == 0) {
    EXPECT_TRUE(read_bytes(output_) == expected) << "answers of the edited input in the output";
  } else {
    EXPECT_EQ(again.code, 1) << again;
    EXPECT_THAT(again.errors(), ElementsAre(HasSubstr("--fresh"))) << again;
  }
}

TEST_F(BadWeather, InputThatChangesBetweenRuns) {
  const std::string expected = undisturbed();
  const std::string original = workplace_ / "original.jsonl";
  ASSERT_EQ(bash("cp -p " + input_ + " " + original).code, 0);
  interrupt();
  const std::string before = read_bytes(output_ + ".job/journal-0000.jsonl");
  struct Case {
    std::string action;
    std::string named;
  };
  for (const Case& c : std::vector<Case>{
           {"rm " + input_, input_ + ": there is no such input file"},
           {"echo '{\"prompt\": 1}' >> " + input_, "the input\'s size was 15780, is 15794"},
           {"truncate -s 2000 " + input_, "the input\'s size was 15780, is 2000"},
           {": > " + input_, "the input\'s size was 15780, is 0"},
           {"sed -i '2s/Darcy/Bingl/' " + input_, "the input's lines was"},
           {"rm " + input_ + "; mkdir " + input_, input_}}) {
    SCOPED_TRACE(c.action);
    ASSERT_EQ(bash(c.action).code, 0);
    const Finished run = bash(command(output_));
    EXPECT_EQ(run.code, 1) << run;
    EXPECT_EQ(run.errors().size(), 1U) << run;
    EXPECT_THAT(run.err, HasSubstr(c.named));
    EXPECT_EQ(read_bytes(output_ + ".job/journal-0000.jsonl"), before);
    EXPECT_EQ(state().at("state"), "again");
    ASSERT_EQ(bash("rm -rf " + input_ + "; cp -p " + original + " " + input_).code, 0);
  }
  const Finished again = bash(command(output_));
  EXPECT_EQ(again.code, 0) << again;
  EXPECT_EQ(read_bytes(output_), expected);
}

}  // namespace
}  // namespace penstock::tests
