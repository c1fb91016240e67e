// A record's answer does not depend on the layout: 200 records, greedy and sampled, give the same
// bytes for any number of stages, slots, rows of a step, threads, and KV memory.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;

constexpr int kRecords = 200;
// One KV block of one layer of the embedded model in bf16: keys and values of 2 heads of 48
// numbers for 32 tokens.
constexpr std::uint64_t kLayerBlockBytes = 2 * 2 * 48 * 32 * 2;
// The longest prompt and its answer, in blocks. See make_records().
constexpr std::uint64_t kLongestBlocks = 10;

template <class T>
T pick(std::mt19937& random, const std::vector<T>& choices) {
  return choices[random() % choices.size()];
}

// Prompts of 1 to about 220 tokens, answers of 1 to 60. The longest pair stays below
// kLongestBlocks * 32 tokens.
std::string make_records() {
  const std::vector<std::string> words = {
      "It is a truth",  "universally", "acknowledged,",  "that Mr. Darcy", "walked",
      "with Elizabeth", "to the ball", "and her mother", "was surprised.", "Captain Wentworth's",
      "letter",         "— été",       "in 1811",        "\"My dear\"",    "said he;\n",
      "日本",           "🙂"};
  std::mt19937 random(20260729);
  std::string text;
  for (int i = 0; i < kRecords; ++i) {
    json record = {{"id", i}};
    const int length = pick<int>(random, {1, 1, 2, 3, 5, 8, 13, 21, 34, 50});
    // Some records share a long beginning.
    std::string prompt = i % 10 == 3 ? "They walked along the lane together, and" : "";
    for (int n = 0; n < length; ++n) {
      prompt += (prompt.empty() ? "" : " ") + pick(random, words);
      if (prompt.size() > 400) break;
    }
    record["prompt"] = prompt;
    record["max_tokens"] = i % 17 == 0 ? 1 : 1 + random() % 60;
    if (i % 2 == 1) {
      record["temperature"] = pick<double>(random, {0.2, 0.7, 1.0, 1.5});
      record["seed"] = random() % 3;
      if (i % 3 == 0) record["top_k"] = pick<int>(random, {1, 5, 40});
      if (i % 5 == 0) record["top_p"] = pick<double>(random, {0.3, 0.9});
      if (i % 7 == 0) record["min_p"] = 0.05;
    }
    if (i % 4 < 2) record["repetition_penalty"] = pick<double>(random, {0.9, 1.1, 1.4});
    if (i % 6 == 1) record["presence_penalty"] = 0.5;
    if (i % 6 < 3) record["frequency_penalty"] = pick<double>(random, {-0.2, 0.4});
    if (i % 8 == 5) record["stop"] = json::array({" the", "his ", "."});
    if (i % 9 == 0) record["ignore_eos"] = true;
    text += record.dump() + "\n";
  }
  return text;
}

std::string kv_memory(std::uint64_t blocks, std::uint64_t layers) {
  return std::to_string(blocks * layers * kLayerBlockBytes);
}

class Layouts : public testing::Test {
 protected:
  void SetUp() override { input_ = workplace_.write("records.jsonl", make_records()); }

  // The output file's bytes. `ranks` 0: without mpirun.
  std::string answers(int ranks, const Arguments& options) {
    const std::string output = workplace_ / ("answers-" + std::to_string(runs_++) + ".jsonl");
    const Arguments arguments = Arguments{"run",      kEmbeddedModel, "--input",    input_,
                                          "--output", output,         "--progress", "none"} +
                                options;
    const Finished run = ranks == 0 ? penstock(arguments) : penstock_ranks(ranks, arguments);
    EXPECT_EQ(run.code, 0) << run;
    if (run.code != 0) return "failed";
    const json ledger = json::parse(read_bytes(output + ".job/ledger.json"));
    evictions_ = ledger.at("evictions").get<std::uint64_t>();
    return read_bytes(output);
  }

  TemporaryFolder workplace_;
  std::string input_;
  std::uint64_t evictions_ = 0;  // of the last run
  int runs_ = 0;
};

// Whether `rows` are worth comparing: all kinds of answers are among them.
void expect_variety(const std::string& rows) {
  int stopped = 0;
  int cut = 0;
  int empty = 0;
  for (const std::string& line : lines_of(rows)) {
    const json row = json::parse(line);
    stopped += row.at("finish_reason") == "stop" ? 1 : 0;
    cut += row.at("finish_reason") == "length" ? 1 : 0;
    empty += row.at("text") == "" ? 1 : 0;
  }
  EXPECT_EQ(stopped + cut, kRecords);
  EXPECT_GT(stopped, 10);
  EXPECT_GT(cut, 100);
  EXPECT_LT(empty, 20);
}

// Prints the first row that differs, not both files.
void expect_same(const std::string& rows, const std::string& expected, const std::string& how) {
  const std::vector<std::string> mine = lines_of(rows);
  const std::vector<std::string> theirs = lines_of(expected);
  ASSERT_EQ(mine.size(), theirs.size()) << how;
  for (std::size_t i = 0; i < mine.size(); ++i) ASSERT_EQ(mine[i], theirs[i]) << how;
  EXPECT_TRUE(rows == expected) << how;
}

// Slots are as many as the user says; else, where there are several stages, as a measurement says.
TEST_F(Layouts, TheHeaderTellsOfSlotsAndTrip) {
  struct Way {
    int ranks;
    Arguments options;
    std::string schedule;  // a regular expression
  };
  for (const Way& way :
       {Way{0, {}, "schedule    1 slot, context"},
        Way{0, {"--stages", "2"}, "schedule    [345] slots \\(trip [0-9.]+ ms\\), context"},
        Way{2, {}, "schedule    [345] slots \\(trip [0-9.]+ ms\\), context"},
        Way{2, {"--slots", "4"}, "schedule    4 slots, context"}}) {
    const Arguments arguments =
        Arguments{"run",         kEmbeddedModel,
                  "--input",     input_,
                  "--output",    workplace_ / ("header-" + std::to_string(runs_++) + ".jsonl"),
                  "--limit",     "3",
                  "--threads",   "1",
                  "--kv-memory", "64M"} +
        way.options;
    const Finished run =
        way.ranks == 0 ? penstock(arguments) : penstock_ranks(way.ranks, arguments);
    EXPECT_EQ(run.code, 0) << run;
    EXPECT_THAT(run.out + run.err, testing::ContainsRegex(way.schedule));
  }
}

// Plenty for all records; the default would be filled with zeros for longer than the job takes.
const Arguments kPlenty = {"--kv-memory", "64M"};

struct Case {
  int ranks;  // 0: without mpirun
  Arguments options;
  std::uint64_t layers = 0;  // of the largest stage, where memory is short
};

TEST_F(Layouts, GiveTheSameBytesInBf16) {
  const Arguments bf16 = {"--dtype", "bf16"};
  const std::string expected = answers(0, bf16 + kPlenty + Arguments{"--threads", "1"});
  expect_variety(expected);
  EXPECT_EQ(evictions_, 0U);

  // The stages of 1, 2, 3 and 4 ranks have 6, 3, 2 and 2 layers at most.
  const std::vector<Case> cases = {
      {0, {"--threads", "2", "--slots", "2"}},
      {0, {"--link", "local", "--stages", "3", "--threads", "1"}, 2},
      {1, {"--link", "mpi", "--slots", "1", "--max-step-tokens", "64"}, 6},
      {1, {"--link", "mpi", "--slots", "3", "--max-step-tokens", "512", "--threads", "2"}},
      {2, {"--link", "mpi", "--max-step-tokens", "33", "--threads", "1"}},
      {2, {"--link", "mpi", "--slots", "5", "--max-step-tokens", "1000", "--threads", "2"}, 3},
      {3, {"--link", "mpi", "--slots", "3", "--max-step-tokens", "7", "--threads", "1"}, 2},
      {3, {"--slots", "1", "--max-step-tokens", "100", "--threads", "1"}},
      {4, {"--link", "mpi", "--threads", "1"}, 2},
      {4, {"--link", "mpi", "--slots", "7", "--max-step-tokens", "16", "--threads", "2"}},
  };
  for (const Case& c : cases) {
    const std::string how =
        testing::PrintToString(c.options) + " on " + std::to_string(c.ranks) + " ranks";
    const Arguments memory =
        c.layers == 0 ? kPlenty : Arguments{"--kv-memory", kv_memory(kLongestBlocks, c.layers)};
    expect_same(answers(c.ranks, bf16 + c.options + memory), expected, how);
    if (c.layers > 0) {
      EXPECT_GT(evictions_, 0U) << how;
    } else {
      EXPECT_EQ(evictions_, 0U) << how;
    }
  }
}

TEST_F(Layouts, GiveTheSameBytesInF32) {
  const Arguments f32 = {"--dtype", "f32"};
  const std::string expected = answers(0, f32 + kPlenty);
  expect_variety(expected);
  // Twice the bytes of bf16.
  const std::vector<Case> cases = {
      {3, {"--link", "mpi", "--max-step-tokens", "48", "--threads", "1"}, 2 * 2},
      {0, {"--link", "local", "--stages", "6", "--slots", "4", "--threads", "1"}, 2 * 1},
  };
  for (const Case& c : cases) {
    const std::string how = testing::PrintToString(c.options);
    const Arguments memory = {"--kv-memory", kv_memory(kLongestBlocks, c.layers)};
    expect_same(answers(c.ranks, f32 + c.options + memory), expected, how);
    EXPECT_GT(evictions_, 0U) << how;
  }
}

// Without this, equal bytes could come from options that nobody looks at.
TEST_F(Layouts, TypesSeedsAndPenaltiesMatter) {
  const Arguments few = kPlenty + Arguments{"--limit", "40", "--dtype"};
  const std::string expected = answers(0, few + Arguments{"bf16"});
  EXPECT_NE(answers(0, few + Arguments{"f32"}), expected);
  const Arguments warm = few + Arguments{"bf16", "--temperature", "0.9", "--seed"};
  const std::string seed_5 = answers(0, warm + Arguments{"5"});
  EXPECT_NE(seed_5, expected);
  EXPECT_NE(answers(0, warm + Arguments{"6"}), seed_5);
  EXPECT_NE(answers(0, few + Arguments{"bf16", "--presence-penalty", "1.5"}), expected);
}

}  // namespace
}  // namespace penstock::tests
