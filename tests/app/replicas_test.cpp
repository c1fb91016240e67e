// Several pipelines that share the records of one job: the same bytes as one, whatever happens.

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
using testing::ContainsRegex;
using testing::HasSubstr;

class Replicas : public InterruptedJob {
 protected:
  // Rows of one replica's journal.
  std::size_t rows_of(int replica) const {
    const std::string journal = output_ + ".job/journal-000" + std::to_string(replica) + ".jsonl";
    if (!fs::exists(journal)) return 0;
    const std::string bytes = read_bytes(journal);
    return static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '\n'));
  }
  bool all_get_on(Process& process, int replicas, std::size_t more) const {
    std::vector<std::size_t> before;
    for (int i = 0; i < replicas; ++i) before.push_back(rows_of(i));
    return process.reaches([&] {
      for (int i = 0; i < replicas; ++i) {
        if (rows_of(i) < before[static_cast<std::size_t>(i)] + more) return false;
      }
      return true;
    });
  }
  void remove_job() const {
    fs::remove(output_);
    fs::remove_all(output_ + ".job");
  }
};

TEST_F(Replicas, GiveTheSameBytesAsOne) {
  write_input(60);
  for (const Arguments& how : {Arguments{}, kSampled}) {
    const std::string expected = undisturbed(how);
    const struct {
      int ranks;  // 0: threads
      Arguments layout;
      std::size_t replicas;
      std::size_t stages;
    } cases[] = {{4, {"--replicas", "2"}, 2, 2},
                 {4, {"--stages", "1"}, 4, 1},
                 {4, {"--replicas", "1"}, 1, 4},
                 {0, {"--replicas", "3", "--stages", "2"}, 3, 2}};
    for (const auto& c : cases) {
      const Arguments arguments = command(output_, how + c.layout, kQuick);
      const Finished run = c.ranks == 0 ? penstock(arguments) : penstock_ranks(c.ranks, arguments);
      SCOPED_TRACE(testing::PrintToString(c.layout));
      expect_done(run, expected);
      EXPECT_EQ(state().at("finished"), 60);
      const json ledger = json::parse(read_bytes(output_ + ".job/ledger.json"));
      EXPECT_EQ(ledger.at("replicas").size(), c.replicas);
      EXPECT_EQ(ledger.at("stages").size(), c.replicas * c.stages);
      std::uint64_t tokens = 0;
      for (const json& replica : ledger.at("replicas")) {
        tokens += replica.at("generated_tokens").get<std::uint64_t>();
      }
      EXPECT_EQ(tokens, ledger.at("generated_tokens"));
      // Each replica had its part of the work.
      for (std::size_t i = 0; i < c.replicas; ++i) {
        EXPECT_EQ(rows_of(static_cast<int>(i)), 60 / c.replicas) << i;
      }
      if (c.replicas > 1) {
        EXPECT_THAT(run.err, HasSubstr(std::to_string(c.replicas) + " replicas of " +
                                       std::to_string(c.stages) + " stage"));
      }
      remove_job();
    }
  }
}

TEST_F(Replicas, MoreThanRecordsHaveNothingToDo) {
  for (const int records : {1, 2, 3}) {
    write_input(records);
    const std::string expected = undisturbed();
    expect_done(penstock_ranks(4, command(output_, {"--stages", "1"}, kQuick)), expected);
    remove_job();
  }
  // None at all, and bad ones in shares of their own.
  workplace_.write("input.jsonl", "\n");
  expect_done(penstock_ranks(2, command(output_, {"--replicas", "2"}, kQuick)), "");
  remove_job();
  workplace_.write("input.jsonl", "{\"prompt\": 1}\n{\"prompt\": \"It was\"}\n{}\n");
  const std::string expected = undisturbed({}, 2);
  const Finished run = penstock_ranks(4, command(output_, {"--stages", "1"}, kQuick));
  EXPECT_EQ(run.code, 2) << run;
  EXPECT_EQ(read_bytes(output_), expected);
  EXPECT_EQ(state().at("state"), "errors");
  EXPECT_EQ(state().at("failed"), 2);
  EXPECT_EQ(state().at("finished"), 1);
  EXPECT_THAT(run.err, ContainsRegex("error row: .*\n(.*\n)*error row: "));
}

// Whoever worked on a record before, its new owner goes on.
TEST_F(Replicas, KilledJobGoesOnWithAnyOtherLayout) {
  write_input(800);
  const std::string expected = undisturbed(kSampled);
  const auto first = begin(by_mpirun(4, job(kSampled + Arguments{"--replicas", "2"})));
  ASSERT_TRUE(all_get_on(*first, 2, 10)) << first->wait();
  const std::vector<pid_t> ranks = children_of(first->pid());
  ASSERT_EQ(ranks.size(), 4U);
  kill(ranks[3], SIGKILL);
  const Finished killed = first->wait();
  EXPECT_NE(killed.code, 0) << killed;
  EXPECT_FALSE(killed.hung) << killed;
  EXPECT_EQ(state().at("state"), "running");

  const auto second = begin(by_mpirun(4, job(kSampled + Arguments{"--replicas", "4"})));
  ASSERT_TRUE(all_get_on(*second, 4, 5)) << second->wait();
  // Ranks whose mpirun is gone work on for a second or two.
  const std::vector<pid_t> all = children_of(second->pid());
  second->signal(SIGKILL);
  for (const pid_t rank : all) kill(rank, SIGKILL);
  second->wait();

  const auto third = begin(alone(job(kSampled)));
  ASSERT_TRUE(gets_on(*third)) << third->wait();
  third->signal(SIGUSR1);
  const Finished stopped = third->wait();
  EXPECT_EQ(stopped.code, 75) << stopped;
  std::size_t lines = 0;
  for (int i = 0; i < 4; ++i) lines += rows_of(i);
  EXPECT_GE(lines, state().at("finished").get<std::size_t>());
  EXPECT_EQ(state().at("finished").get<std::size_t>() + state().at("left").get<std::size_t>(),
            800U);

  const Finished last = penstock_ranks(
      3, command(output_, kSampled + Arguments{"--replicas", "3"}, {"--kv-memory", "4M"}));
  expect_done(last, expected);
  EXPECT_THAT(last.err, HasSubstr("goes on"));
  // Done is done, with any layout.
  const Finished again =
      penstock_ranks(4, command(output_, kSampled + Arguments{"--replicas", "2"}));
  expect_done(again, expected);
  EXPECT_THAT(again.err, HasSubstr("nothing to do"));
}

TEST_F(Replicas, ASignalToAnyRankDrainsAll) {
  write_input(1600);
  const Arguments layout = {"--replicas", "2"};
  std::size_t left = 1600;
  for (const std::size_t rank : {0U, 1U, 2U, 3U}) {
    const auto process = begin(by_mpirun(4, job(layout)));
    ASSERT_TRUE(all_get_on(*process, 2, 3)) << process->wait();
    const std::vector<pid_t> ranks = children_of(process->pid());
    ASSERT_EQ(ranks.size(), 4U);
    kill(ranks[rank], SIGUSR1);
    const Finished run = process->wait();
    EXPECT_EQ(run.code, 75) << rank << run;
    EXPECT_THAT(run.err, AllOf(HasSubstr("no more records are begun"),
                               HasSubstr("stopped early (SIGUSR1 or SIGUSR2 came)")));
    EXPECT_EQ(state().at("state"), "again");
    EXPECT_EQ(state().at("partial_tokens"), 0);
    EXPECT_LT(state().at("left"), left);
    left = state().at("left");
    EXPECT_EQ(state().at("finished"), 1600 - left);
    EXPECT_EQ(rows_of(0) + rows_of(1), 1600 - left);
    EXPECT_FALSE(fs::exists(output_ + ".job/lock"));
  }
  const std::string expected = undisturbed();
  expect_done(penstock_ranks(4, command(output_, {"--stages", "1"}, kQuick)), expected);
}

// A replica whose records are short is done first. It waits for the other one, and a signal that
// comes to one of its ranks stops that one.
TEST_F(Replicas, WhoIsDoneWaitsForTheOthers) {
  for (const int slow : {0, 1}) {
    SCOPED_TRACE(slow);
    std::string lines;
    for (int i = 0; i < 80; ++i) {
      const int tokens = i / 40 == slow ? 450 : 1;
      lines += json{{"prompt", "Mr. Darcy"}, {"max_tokens", tokens}}.dump() + "\n";
    }
    workplace_.write("input.jsonl", lines);
    const std::string expected = undisturbed();
    const Arguments layout = {"--replicas", "2", "--watchdog-seconds", "3"};
    const auto process = begin(by_mpirun(4, job(layout)));
    ASSERT_TRUE(process->reaches([&] { return rows_of(1 - slow) == 40; })) << process->wait();
    const std::vector<pid_t> ranks = children_of(process->pid());
    ASSERT_EQ(ranks.size(), 4U);
    std::this_thread::sleep_for(std::chrono::milliseconds(500));  // until it waits
    kill(ranks[slow == 0 ? 3 : 1], SIGUSR1);
    const Finished run = process->wait();
    EXPECT_EQ(run.code, 75) << run;
    EXPECT_EQ(state().at("state"), "again");
    EXPECT_GE(state().at("finished"), 40);
    EXPECT_GT(state().at("left"), 0);
    expect_done(penstock_ranks(4, command(output_, {"--stages", "1"}, kQuick)), expected);
    remove_job();
  }
}

TEST_F(Replicas, AStoppedRankIsNamedWithItsReplica) {
  write_input(20'000);
  const Arguments layout = {"--watchdog-seconds", "4"};
  for (const auto& [replicas, victim, message] :
       {std::tuple{"2", 3, "replica 1, stage 0: no [^;]+ for [0-9.]+ s; .*last heard of it"},
        std::tuple{"4", 2, "rank 2, host [^ ]+ is the driver of replica 2, last heard of it"},
        std::tuple{"4", 0, "rank 0, host [^ ]+ is the driver of replica 0, last heard of it"}}) {
    SCOPED_TRACE(victim);
    const auto process = begin(by_mpirun(4, job(layout + Arguments{"--replicas", replicas})));
    ASSERT_TRUE(all_get_on(*process, 2, 3)) << process->wait();
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));  // heartbeats have told of it
    const std::vector<pid_t> ranks = children_of(process->pid());
    ASSERT_EQ(ranks.size(), 4U);
    kill(ranks[static_cast<std::size_t>(victim)], SIGSTOP);
    const Finished run = process->wait();
    EXPECT_NE(run.code, 0) << run;
    EXPECT_FALSE(run.hung) << run;
    EXPECT_THAT(run.err, ContainsRegex("error: " +
                                       std::string(victim == 3 ? ""
                                                               : "replica [0-3], "
                                                                 "stage 0: .*") +
                                       message))
        << run;
    EXPECT_THAT(read_bytes(output_ + ".job/state"), HasSubstr("running"));
    remove_job();
  }
}

TEST_F(Replicas, WrongNumbersSayWhatToDo) {
  write_input(3);
  expect_refused(penstock_ranks(3, job({"--replicas", "2"})),
                 AllOf(HasSubstr("--replicas 2 needs a multiple of 2 ranks"), HasSubstr("but 3")));
  expect_refused(penstock_ranks(4, job({"--replicas", "2", "--stages", "4"})),
                 HasSubstr("--replicas 2 of --stages 4 need 8 ranks, but 4"));
  const Finished bench = penstock_ranks(2, {"bench", model_, "--stages", "1"});
  expect_refused(bench, HasSubstr("--stages 1 needs as many ranks for one pipeline"));
}

}  // namespace
}  // namespace penstock::tests
