#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/program.hpp"

// What the tests of interrupted jobs share.
namespace penstock::tests {

inline const Arguments kSampled = {"--temperature",      "0.9", "--top-p", "0.95", "--seed", "7",
                                   "--presence-penalty", "0.3"};

// A row a step, so that it takes some seconds, in which rows come steadily.
inline const Arguments kSlow = {"--max-step-tokens", "1", "--kv-memory", "1M"};
inline const Arguments kQuick = {"--kv-memory", "16M"};

// The processes that a process started.
inline std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> children;
  for (const auto& thread :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    std::ifstream list(thread.path() / "children");
    for (pid_t child = 0; list >> child;) children.push_back(child);
  }
  return children;
}

// Jobs that are interrupted, and the one that nobody disturbs.
class InterruptedJob : public testing::Test {
 protected:
  // `records` prompts, some of them with an id, a limit or a stop string of their own.
  void write_input(int records) {
    std::string lines;
    for (int i = 0; i < records; ++i) {
      nlohmann::json record = {{"prompt", "Mr. Darcy and " + std::to_string(i)}};
      if (i % 3 == 0) record["id"] = "r" + std::to_string(i);
      if (i % 5 == 0) record["stop"] = nlohmann::json::array({"the", "é"});
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
    if (!std::filesystem::exists(journal)) return 0;
    const std::string bytes = read_bytes(journal);
    return static_cast<std::size_t>(std::count(bytes.begin(), bytes.end(), '\n'));
  }
  // Whether the job comes to have that many rows more than now.
  bool gets_on(Process& process, std::size_t more = 20) const {
    const std::size_t before = rows();
    return process.reaches([&] { return rows() >= before + more; });
  }

  nlohmann::json state(const std::string& output) const {
    return nlohmann::json::parse(read_bytes(output + ".job/state"));
  }
  nlohmann::json state() const { return state(output_); }
  void expect_done(const Finished& run, const std::string& expected) const {
    EXPECT_EQ(run.code, 0) << run;
    EXPECT_EQ(read_bytes(output_), expected);
    EXPECT_EQ(state().at("state"), "done");
    EXPECT_EQ(state().at("left"), 0);
    EXPECT_EQ(state().at("partial_tokens"), 0);
    EXPECT_FALSE(std::filesystem::exists(output_ + ".job/lock"));
  }
  void expect_refused(const Finished& run, const testing::Matcher<std::string>& message) const {
    EXPECT_EQ(run.code, 1) << run;
    EXPECT_THAT(run.err, testing::AllOf(testing::HasSubstr("penstock: error: "), message));
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

  TemporaryFolder workplace_;
  std::string model_ = kEmbeddedModel;
  std::string input_ = workplace_ / "input.jsonl";
  std::string output_ = workplace_ / "output.jsonl";
};

}  // namespace penstock::tests
