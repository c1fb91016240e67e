// Jobs that are interrupted in every way, and go on by the same command: their answers are those of
// a job that nobody disturbed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "tests/app/interrupted_job.hpp"

namespace penstock::tests {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Resume : public InterruptedJob {};

TEST_F(Resume, KilledInTheMiddleOnAnyNumberOfRanks) {
  write_input(400);
  for (const Arguments& how : {Arguments{}, kSampled}) {
    const std::string expected = undisturbed(how);
    const auto first = begin(alone(job(how)));
    ASSERT_TRUE(gets_on(*first)) << first->wait();
    first->signal(SIGKILL);
    EXPECT_EQ(first->wait().signal, SIGKILL);
    EXPECT_EQ(state().at("state"), "running");
    EXPECT_FALSE(fs::exists(output_));
    const std::size_t finished = rows();

    // One of the ranks.
    const auto second = begin(by_mpirun(2, job(how)));
    ASSERT_TRUE(gets_on(*second)) << second->wait();
    const std::vector<pid_t> ranks = children_of(second->pid());
    ASSERT_EQ(ranks.size(), 2U);
    kill(ranks[1], SIGKILL);
    const Finished killed = second->wait();
    EXPECT_NE(killed.code, 0) << killed;
    EXPECT_FALSE(killed.hung) << killed;
    EXPECT_FALSE(fs::exists(output_));
    EXPECT_GT(rows(), finished);

    const auto third = begin(alone(job(how + Arguments{"--link", "local", "--stages", "2"})));
    ASSERT_TRUE(gets_on(*third)) << third->wait();
    third->signal(SIGKILL);
    third->wait();

    const Finished last = penstock_ranks(3, job(how));
    expect_done(last, expected);
    EXPECT_THAT(last.err, HasSubstr("goes on"));
    fs::remove(output_);
    fs::remove_all(output_ + ".job");
  }
}

TEST_F(Resume, OtherParametersAreRefusedWithTheDifference) {
  write_input(160);
  interrupt();
  const std::string journal = read_bytes(output_ + ".job/journal-0000.jsonl");
  const json before = state();
  const struct {
    Arguments more;
    std::string message;
  } cases[] = {
      {{"--temperature", "0.7"}, "--temperature was 0, is 0.7"},
      {{"--seed", "3"}, "--seed was 0, is 3"},
      {{"--stop", "END"}, "--stop was not given, is \"END\""},
      {{"--limit", "100"}, "the number of records (--input, --limit) was 160, is 100"},
      {{"--part", "1/2"}, "the share of records (--part) was 160, is 80"},
      {{"--max-context", "100"}, "--max-context was 512, is 100"},
      {{"--input-format", "text"}, "--input-format was \"JSONL\", is \"text\""},
      {{"--dtype", "f32"}, "the numeric class (device, instruction set, data types) was "},
  };
  for (const auto& [more, message] : cases) {
    expect_refused(penstock(job(more)),
                   AllOf(HasSubstr(output_ + ".job: "), HasSubstr(message), HasSubstr("--fresh")));
    EXPECT_EQ(read_bytes(output_ + ".job/journal-0000.jsonl"), journal);
    EXPECT_EQ(state(), before);
  }
  model_ = synthesize(workplace_, 2);
  expect_refused(penstock(job()), HasSubstr("the checkpoint was "));
  model_ = kEmbeddedModel;
  // By mpirun it is told once.
  expect_refused(penstock_ranks(2, job({"--seed", "3"})), HasSubstr("--seed was 0, is 3"));
  expect_refused(penstock_ranks(2, job({"--dtype", "f32"})), HasSubstr("the numeric class"));

  // What does not change answers may change.
  fs::copy_file(kEmbeddedModel, workplace_ / "copy.h5");
  fs::rename(input_, workplace_ / "moved.jsonl");
  input_ = workplace_ / "moved.jsonl";
  model_ = workplace_ / "copy.h5";
  const std::string expected = undisturbed();
  expect_done(penstock_ranks(2, command(output_, {"--slots", "4", "--verify-input"},
                                        {"--max-step-tokens", "32", "--kv-memory", "4M"})),
              expected);
}

TEST_F(Resume, FreshStartsOver) {
  write_input(160);
  interrupt();
  const std::string other = undisturbed({"--seed", "3", "--temperature", "1"});
  expect_done(penstock(job({"--seed", "3", "--temperature", "1", "--fresh"})), other);
  // Also what is done.
  const std::string expected = undisturbed();
  expect_done(penstock(job({"--fresh"})), expected);
}

TEST_F(Resume, ChangedInputIsRefused) {
  write_input(160);
  const std::string content = read_bytes(input_);
  const std::string expected = undisturbed();
  interrupt();
  workplace_.write("input.jsonl", content + content);
  expect_refused(penstock(job()), AllOf(HasSubstr("the input's size was"), HasSubstr("--fresh")));
  std::string changed = content;
  changed[changed.find("Darcy")] = 'M';
  workplace_.write("input.jsonl", changed);
  expect_refused(penstock(job()), HasSubstr("the input's "));
  fs::remove(input_);
  expect_refused(penstock(job()), HasSubstr("there is no such input file"));
  workplace_.write("input.jsonl", content);
  expect_done(penstock(job()), expected);
}

TEST_F(Resume, FinishedJobHasNothingToDo) {
  write_input(20);
  const std::string expected = undisturbed();
  expect_done(penstock(job()), expected);
  const auto written = fs::last_write_time(output_);
  const std::string journal = read_bytes(output_ + ".job/journal-0000.jsonl");
  for (const int ranks : {1, 2}) {
    const Finished again = penstock_ranks(ranks, job());
    expect_done(again, expected);
    EXPECT_THAT(again.err, AllOf(HasSubstr("nothing to do"), Not(HasSubstr("schedule"))));
    EXPECT_EQ(fs::last_write_time(output_), written);
    EXPECT_EQ(read_bytes(output_ + ".job/journal-0000.jsonl"), journal);
  }
  expect_refused(penstock(job({"--seed", "1"})), HasSubstr("--seed was 0, is 1"));
  expect_refused(penstock(job({"--limit", "10"})), HasSubstr("--limit"));
  EXPECT_EQ(read_bytes(output_), expected);

  // The output is written again from the journal.
  fs::remove(output_);
  const Finished written_again = penstock(job());
  expect_done(written_again, expected);
  EXPECT_THAT(written_again.err, HasSubstr("writing " + output_));
  // Whatever the state says.
  for (const char* text : {"{\"state\": 7}", "rubbish", "", "[]", "{\"state\": \"running\"}"}) {
    workplace_.write("output.jsonl.job/state", text);
    expect_done(penstock(job()), expected);
  }
  fs::remove(output_ + ".job/state");
  expect_done(penstock(job()), expected);
}

TEST_F(Resume, ErrorRowsCountInAllRuns) {
  write_input(300);
  const std::string spaces(200, ' ');  // long records come first
  workplace_.write("input.jsonl", "nonsense" + spaces + "x\n{\"prompt\": " + spaces + "7}\n" +
                                      read_bytes(input_) + "{\n");
  const std::string expected = undisturbed({}, 2);
  interrupt();
  EXPECT_EQ(state().at("failed"), 2);
  const auto killed = begin(alone(job()));
  ASSERT_TRUE(gets_on(*killed)) << killed->wait();
  killed->signal(SIGKILL);
  killed->wait();
  for (int i = 0; i < 2; ++i) {  // goes on; has nothing to do
    const Finished run = penstock(job());
    EXPECT_EQ(run.code, 2) << run;
    EXPECT_EQ(read_bytes(output_), expected);
    EXPECT_EQ(state().at("state"), "errors");
    EXPECT_EQ(state().at("failed"), 3);
    EXPECT_EQ(state().at("finished"), 300);
  }
}

TEST_F(Resume, ATornJournalGoesOn) {
  write_input(160);
  const std::string expected = undisturbed();
  interrupt();
  const std::string path = output_ + ".job/journal-0000.jsonl";
  const std::string journal = read_bytes(path);
  std::string damaged = journal;
  damaged[journal.size() / 2] ^= 4;
  for (const std::string& bytes : {journal.substr(0, journal.size() - 5), journal + "{\"id\": nu",
                                   journal + std::string(4096, '\0'),
                                   journal + "rubbish\n" + journal, damaged, std::string()}) {
    std::ofstream(path, std::ios::binary) << bytes;
    const Finished run = penstock(job());
    expect_done(run, expected);
    fs::remove(output_);
  }
  fs::remove(path);
  expect_done(penstock(job()), expected);
  // Of another job.
  fs::remove(output_);
  std::ofstream(path, std::ios::binary) << journal;
  workplace_.write("output.jsonl.job/manifest.json", "{}");
  expect_refused(penstock(job()), HasSubstr("--fresh"));
  workplace_.write("output.jsonl.job/manifest.json", "{\"schema\": [[");
  expect_refused(penstock(job()), AllOf(HasSubstr("manifest.json: "), HasSubstr("--fresh")));
  expect_done(penstock(job({"--fresh"})), expected);
}

TEST_F(Resume, PartsJoinedAreTheWhole) {
  write_input(20);
  const std::string expected = undisturbed();
  for (const int parts : {3, 22}) {
    std::string joined;
    for (int part = 1; part <= parts; ++part) {
      const std::string output = output_ + "." + std::to_string(part);
      const std::string share = std::to_string(part) + "/" + std::to_string(parts);
      const Finished run = penstock(command(output, {"--part", share, "--fresh"}, kQuick));
      ASSERT_EQ(run.code, 0) << run;
      joined += read_bytes(output);
      EXPECT_EQ(state(output).at("state"), "done");
      if (part == parts) {
        EXPECT_EQ(penstock(command(output, {"--part", share})).code, 0);
      }
    }
    EXPECT_EQ(joined, expected);
  }
  for (const char* wrong :
       {"0/3", "4/3", "1", "1/", "/3", "a/b", "1/3/5", "-1/3", "1/0", "", "1/4294967296", " 1/3"}) {
    expect_refused(penstock(job({"--part", wrong})), HasSubstr("--part"));
  }
}

TEST_F(Resume, EmptyInput) {
  workplace_.write("input.jsonl", "\n\n");
  for (int i = 0; i < 2; ++i) {
    const Finished run = penstock(job());
    expect_done(run, "");
    EXPECT_THAT(run.err, Not(HasSubstr("all 0 records")));
  }
}

TEST_F(Resume, StandardInputIsReadOnce) {
  write_input(160);
  const std::string expected = undisturbed();
  const std::string lines = read_bytes(input_);
  input_ = "-";
  const int in = ::open((workplace_ / "input.jsonl").c_str(), O_RDONLY | O_CLOEXEC);
  Process process(alone(job()), in);
  ::close(in);
  ASSERT_TRUE(gets_on(process)) << process.wait();
  process.signal(SIGKILL);
  process.wait();
  const Finished run = penstock(job(), "something else\n");
  expect_done(run, expected);
  EXPECT_THAT(run.err, HasSubstr("standard input is not read"));
}

// It takes the ten seconds between two signs of life of the first job.
TEST_F(Resume, SecondJobOnTheSameOutputIsRefused) {
  write_input(20);
  const std::string expected = undisturbed();
  const std::string lines = read_bytes(input_);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  input_ = "-";
  Process first(alone(job()), ends[0]);
  ::close(ends[0]);
  ASSERT_TRUE(first.reaches([&] { return fs::exists(output_ + ".job/lock"); }));
  input_ = workplace_ / "input.jsonl";
  const auto fresh = begin(alone(job({"--fresh"})));  // not even that
  const Finished second = penstock(job());
  expect_refused(second, HasSubstr("another job works on it"));
  EXPECT_THAT(second.err, HasSubstr("another job may be at work"));
  expect_refused(fresh->wait(), HasSubstr("another job works on it"));
  ASSERT_EQ(::write(ends[1], lines.data(), lines.size()), static_cast<ssize_t>(lines.size()));
  ::close(ends[1]);
  input_ = "-";
  expect_done(first.wait(), expected);
}

}  // namespace
}  // namespace penstock::tests
