// Runs that stop in an orderly way, by a signal or for their time limit, and what they keep.

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

class Stop : public InterruptedJob {};

TEST_F(Stop, DrainsByUsr1) {
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

TEST_F(Stop, TermDrainsToo) {
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
TEST_F(Stop, TimeLimitsShorterThanAnAnswer) {
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

TEST_F(Stop, SecondInterruptStopsAtOnce) {
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
TEST_F(Stop, TermBeforeTheJobBeginsEndsIt) {
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

}  // namespace
}  // namespace penstock::tests
