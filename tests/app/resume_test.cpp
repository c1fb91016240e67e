// Jobs that are interrupted in every way, and go on by the same command: their answers are those of
// a job that nobody disturbed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const Arguments kSampled = {"--temperature",      "0.9", "--top-p", "0.95", "--seed", "7",
                            "--presence-penalty", "0.3"};

// A row a step, so that it takes some seconds, in which rows come steadily.
const Arguments kSlow = {"--max-step-tokens", "1", "--kv-memory", "1M"};
const Arguments kQuick = {"--kv-memory", "16M"};

// The processes that a process started.
std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> children;
  for (const auto& thread : fs::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    std::ifstream list(thread.path() / "children");
    for (pid_t child = 0; list >> child;) children.push_back(child);
  }
  return children;
}

class Resume : public testing::Test {
 protected:
  // `records` prompts, some of them with an id, a limit or a stop string of their own.
  void write_input(int records) {
    std::string lines;
    for (int i = 0; i < records; ++i) {
      json record = {{"prompt", "Mr. Darcy and " + std::to_string(i)}};
      if (i % 3 == 0) record["id"] = "r" + std::to_string(i);
      if (i % 5 == 0) record["stop"] = json::array({"the", "é"});
      if (i % 7 == 0) record["max_tokens"] = 5;
      lines += record.dump() + "\n";
      if (i % 11 == 0) lines += "\n";
    }
    workplace_.write("input.jsonl", lines);
  }

  // The same command each time.
  Arguments command(const std::string& output, const Arguments& more = {},
                    const Arguments& layout = kSlow) const {
    return Arguments{"run",          model_,       "--input", input_,         "--output",
                     output,         "--progress", "none",    "--max-tokens", "60",
                     "--ignore-eos", "--threads",  "1"} +
           layout + more;
  }
  Arguments job(const Arguments& more = {}) const { return command(output_, more); }
  static Arguments alone(const Arguments& arguments) {
    return Arguments{PENSTOCK_PROGRAM} + arguments;
  }

  std::string undisturbed(const Arguments& more = {}, int code = 0) const {
    const std::string output = workplace_ / "undisturbed";
    const Finished run = penstock(command(output, more + Arguments{"--fresh"}, kQuick));
    EXPECT_EQ(run.code, code) << run;
    return read_bytes(output);
  }

  std::unique_ptr<Process> begin(const Arguments& whole_command) const {
    return std::make_unique<Process>(whole_command, 0);
  }
  std::size_t rows() const {
    const std::string journal = output_ + ".job/journal-0000.jsonl";
    if (!fs::exists(journal)) return 0;
    const std::string bytes = read_bytes(journal);
    return static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '\n'));
  }
  // Whether the job comes to have that many rows more than now.
  bool gets_on(Process& process, std::size_t more = 20) const {
    const std::size_t before = rows();
    return process.reaches([&] { return rows() >= before + more; });
  }

  json state(const std::string& output) const {
    return json::parse(read_bytes(output + ".job/state"));
  }
  json state() const { return state(output_); }
  void expect_done(const Finished& run, const std::string& expected) const {
    EXPECT_EQ(run.code, 0) << run;
    EXPECT_EQ(read_bytes(output_), expected);
    EXPECT_EQ(state().at("state"), "done");
    EXPECT_EQ(state().at("left"), 0);
    EXPECT_EQ(state().at("partial_tokens"), 0);
    EXPECT_FALSE(fs::exists(output_ + ".job/lock"));
  }
  void expect_refused(const Finished& run, const testing::Matcher<std::string>& message) const {
    EXPECT_EQ(run.code, 1) << run;
    EXPECT_THAT(run.err, AllOf(HasSubstr("penstock: error: "), message));
    EXPECT_EQ(run.errors().size(), 1U) << run;
  }
  // A job that was stopped in the middle.
  void interrupt() const {
    const auto process = begin(alone(job()));
    ASSERT_TRUE(gets_on(*process));
    process->signal(SIGUSR1);
    const Finished run = process->wait();
    ASSERT_EQ(run.code, 75) << run;
  }

  Workplace workplace_;
  std::string model_ = kEmbeddedModel;
  std::string input_ = workplace_ / "input.jsonl";
  std::string output_ = workplace_ / "output.jsonl";
};

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

TEST_F(Resume, DrainsByUsr1) {
  write_input(300);
  const std::string expected = undisturbed();
  std::size_t left = 300;
  for (const int signal : {SIGUSR1, SIGUSR2}) {
    const bool by_ranks = signal == SIGUSR2;
    const auto process = begin(by_ranks ? by_mpirun(2, job()) : alone(job()));
    ASSERT_TRUE(gets_on(*process)) << process->wait();
    if (by_ranks) {
      kill(children_of(process->pid()).at(1), signal);  // not to the driver
    } else {
      process->signal(signal);
    }
    const Finished run = process->wait();
    EXPECT_EQ(run.code, 75) << run;
    EXPECT_THAT(run.err,
                AllOf(HasSubstr("no more records are begun"), HasSubstr("records are left"),
                      HasSubstr("run the same command again")));
    EXPECT_EQ(state().at("state"), "again");
    EXPECT_EQ(state().at("partial_tokens"), 0) << "there was time to finish what was begun";
    EXPECT_LT(state().at("left"), left);
    left = state().at("left");
    EXPECT_EQ(state().at("finished"), 300 - left);
    EXPECT_FALSE(fs::exists(output_));
    EXPECT_FALSE(fs::exists(output_ + ".job/lock"));
  }
  expect_done(penstock(job()), expected);
}

TEST_F(Resume, TermDrainsToo) {
  write_input(160);
  const std::string expected = undisturbed(kSampled);
  const auto process = begin(alone(job(kSampled)));
  ASSERT_TRUE(gets_on(*process)) << process->wait();
  process->signal(SIGTERM);
  const Finished run = process->wait();
  EXPECT_EQ(run.code, 75) << run;
  EXPECT_EQ(state().at("state"), "again");
  expect_done(penstock_ranks(2, job(kSampled)), expected);
}

// Answers that take longer than a run, so that all runs but the last end inside all of them.
TEST_F(Resume, TimeLimitsShorterThanAnAnswer) {
  std::string lines;
  for (int i = 0; i < 48; ++i) {
    // Several bytes a character, and a stop string that may be cut.
    json record = {{"prompt", "Élizabeth " + std::to_string(i)}, {"max_tokens", 350 + i}};
    if (i % 2 == 0) record["stop"] = "that she could not";
    lines += record.dump() + "\n";
  }
  workplace_.write("input.jsonl", lines);
  const Arguments together = {"--max-step-tokens", "48", "--kv-memory", "64M"};
  for (const Arguments& how : {Arguments{}, kSampled}) {
    const auto all = [&](const std::string& output, const Arguments& more) {
      Arguments arguments = {"run",      model_, "--threads",  "1",    "--input",     input_,
                             "--output", output, "--progress", "none", "--ignore-eos"};
      return arguments + together + how + more;
    };
    const std::string whole = workplace_ / "undisturbed";
    const auto start = std::chrono::steady_clock::now();
    ASSERT_EQ(penstock(all(whole, {"--fresh"})).code, 0);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;

    auto limit = taken * 0.4;
    int runs = 0;
    std::uint64_t most_partial = 0;
    std::uint64_t before = 0;
    Finished run;
    for (; runs < 100; ++runs) {
      const Arguments arguments =
          all(output_, {"--time-limit", std::to_string(limit.count()) + "s"});
      run = runs % 3 == 2 ? penstock_ranks(2, arguments) : penstock(arguments);
      if (run.code == 0 && runs < 2) {  // a machine that did other things before
        limit *= 0.4;
        fs::remove(output_);
        fs::remove_all(output_ + ".job");
        before = 0;
        continue;
      }
      if (run.code != 75) break;
      EXPECT_EQ(state().at("state"), "again");
      const std::uint64_t partial = state().at("partial_tokens");
      const std::uint64_t now = partial + 1000 * state().at("finished").get<std::uint64_t>();
      EXPECT_GE(now, before);
      most_partial = std::max(most_partial, partial);
      if (now == before) limit *= 1.5;  // a machine that does other things now
      before = now;
    }
    EXPECT_GT(runs, 1);
    EXPECT_GT(most_partial, 0U);
    expect_done(run, read_bytes(whole));
    fs::remove(output_);
    fs::remove_all(output_ + ".job");
  }
}

TEST_F(Resume, SecondInterruptStopsAtOnce) {
  // A few short answers tell that the job is at work; the others go on for minutes.
  std::string lines;
  for (int i = 0; i < 76; ++i) {
    lines += json{{"prompt", "Mr. Darcy"}, {"max_tokens", i < 64 ? 1 : 450}}.dump() + "\n";
  }
  workplace_.write("input.jsonl", lines);
  const std::string expected = undisturbed();
  const auto process = begin(alone(command(output_, {"--drain-margin", "300s"}, kQuick)));
  ASSERT_TRUE(process->reaches([&] { return rows() > 0; })) << process->wait();
  process->signal(SIGINT);
  ASSERT_TRUE(process->reaches([&] {
    return process->err().find("no more records are begun") != std::string::npos;
  })) << process->wait();
  process->signal(SIGINT);
  const Finished run = process->wait();
  EXPECT_EQ(run.code, 75) << run;
  EXPECT_EQ(state().at("state"), "again");
  EXPECT_GT(state().at("left"), 0);
  EXPECT_GT(state().at("partial_tokens"), 0);
  expect_done(penstock(command(output_, {}, kQuick)), expected);
}

// Before the job has begun there is nothing to lose, and nobody waits for a drain.
TEST_F(Resume, TermBeforeTheJobBeginsEndsIt) {
  write_input(5);
  for (const int signal : {SIGTERM, SIGINT}) {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    input_ = "-";
    Process process(alone(job()), ends[0]);
    ::close(ends[0]);
    ASSERT_TRUE(process.reaches([&] { return fs::exists(output_ + ".job/lock"); }))
        << process.wait();
    process.signal(signal);
    EXPECT_EQ(process.wait().signal, signal);
    ::close(ends[1]);
  }
  // What it left is taken, and the copy that it did not finish is not.
  input_ = workplace_ / "input.jsonl";
  const std::string expected = undisturbed();
  expect_done(penstock(job()), expected);
  EXPECT_FALSE(fs::exists(output_ + ".job/input.new"));
  EXPECT_FALSE(fs::exists(output_ + ".job/input"));
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
