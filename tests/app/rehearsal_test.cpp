// --device virtual: the real program on devices that are only described.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class RehearsalTest : public testing::Test {
 protected:
  void SetUp() override {
    const Finished made = penstock({"synth", "llama-3.1-8b", model_, "--no-data", "--force"});
    ASSERT_EQ(made.code, 0) << made;
    std::ofstream records(input_);
    for (int i = 0; i < 40; ++i) {
      records << json{{"id", i},
                      {"tokens", std::vector<int>(static_cast<std::size_t>(1 + i * 7), 3)},
                      {"max_tokens", 1 + i % 13}}
              << '\n';
    }
  }
  Arguments run(const std::string& output) const {
    return {"run",     model_,     "--input", input_,      "--output",    output,
            "--fresh", "--device", "virtual", "--virtual", "h100-sxm,ndr"};
  }

  TemporaryFolder folder_;
  std::string model_ = folder_ / "model.h5";
  std::string input_ = folder_ / "input.jsonl";
};

TEST_F(RehearsalTest, AnswersAreTheSameForAnyLayoutAndNobodyTakesThemForReal) {
  const std::string whole = folder_ / "whole.jsonl";
  const Finished alone = penstock(run(whole));
  ASSERT_EQ(alone.code, 0) << alone;
  EXPECT_THAT(alone.err, AllOf(HasSubstr("virtual h100-sxm"), HasSubstr("REHEARSAL"),
                               HasSubstr("1 x h100-sxm, ndr"), HasSubstr("made up")));
  const json manifest = json::parse(read_bytes(whole + ".job/manifest.json"));
  EXPECT_EQ(manifest.at("numeric_class"), "virtual h100-sxm bf16 kv-bf16");
  ASSERT_EQ(read_rows(whole).size(), 40u);
  for (const json& row : read_rows(whole)) {
    EXPECT_EQ(row.at("usage").at("completion_tokens"), 1 + row.at("id").get<int>() % 13);
  }
  const std::string ranks = folder_ / "ranks.jsonl";
  const Finished two = penstock_ranks(2, run(ranks) + Arguments{"--max-step-tokens", "64"});
  ASSERT_EQ(two.code, 0) << two;
  EXPECT_EQ(read_bytes(ranks), read_bytes(whole));
  const std::string threads = folder_ / "threads.jsonl";
  const Finished four = penstock(run(threads) + Arguments{"--stages", "4"});
  ASSERT_EQ(four.code, 0) << four;
  EXPECT_EQ(read_bytes(threads), read_bytes(whole));
  const json ledger = json::parse(read_bytes(threads + ".job/ledger.json"));
  EXPECT_EQ(ledger.at("rehearsal"), "4 x h100-sxm, ndr");
  EXPECT_GT(ledger.at("pipeline_seconds").get<double>(), 0);
}

// Finished or not, made-up answers are not those of a run, nor the other way round.
TEST_F(RehearsalTest, AFinishedOneIsNoRealJobsWork) {
  const std::string records = folder_.write("two.jsonl", "{\"tokens\": [3]}\n{\"tokens\": [4]}\n");
  const auto job = [&](const std::string& output, const Arguments& device) {
    return penstock(Arguments{"run", kEmbeddedModel, "--input", records, "--output", output,
                              "--max-tokens", "3", "--threads", "1"} +
                    device);
  };
  const Arguments rehearsed = {"--device", "virtual", "--virtual", "h100-sxm"};
  for (const auto& [first, second] :
       {std::pair{rehearsed, Arguments{}}, {Arguments{}, rehearsed}}) {
    const std::string output = folder_ / (first.empty() ? "real" : "rehearsed");
    ASSERT_EQ(job(output, first).code, 0);
    const std::string answers = read_bytes(output);
    const Finished refused = job(output, second);
    EXPECT_EQ(refused.code, 1) << refused;
    EXPECT_THAT(refused.err, AllOf(HasSubstr("the rehearsed device"), HasSubstr("h100-sxm"),
                                   HasSubstr("--fresh")));
    EXPECT_EQ(read_bytes(output), answers);
    EXPECT_EQ(job(output, first).code, 0) << "the same again";
  }
}

// What the stages are cut for, and what a step is said to take.
TEST_F(RehearsalTest, RecordsBehindTheLimitDoNotCount) {
  const std::string few = R"({"prompt": "short", "max_tokens": 5})"
                          "\n";
  const std::string long_one = R"({"prompt": ")" + std::string(20'000, 'x') + "\"}\n";
  const auto layout = [&](const std::string& name, const std::string& records) {
    const Finished finished =
        penstock(Arguments{"run", model_, "--input", folder_.write(name + ".jsonl", records),
                           "--output", folder_ / name, "--limit", "1", "--stages", "2", "--device",
                           "virtual", "--virtual", "h100-sxm"});
    EXPECT_EQ(finished.code, 0) << finished;
    const std::size_t begin = finished.err.find("  rank  host");
    EXPECT_NE(begin, std::string::npos);
    return finished.err.substr(begin, finished.err.find("\n1 of 1") - begin);
  };
  EXPECT_EQ(layout("first", few + long_one + long_one), layout("alone", few));
  EXPECT_NE(layout("long", long_one), layout("short", few)) << "or it shows nothing";
}

TEST_F(RehearsalTest, TimeIsTheSameOverThreadsAndRanks) {
  const Arguments bench = {"bench",        model_,        "--device", "virtual", "--virtual",
                           "h100-sxm,ndr", "--steady",    "--prompt", "100",     "--generate",
                           "20",           "--kv-memory", "100M",     "--json"};
  const Finished ranks = penstock_ranks(2, bench);
  ASSERT_EQ(ranks.code, 0) << ranks;
  const Finished threads = penstock(bench + Arguments{"--stages", "2"});
  ASSERT_EQ(threads.code, 0) << threads;
  const json by_ranks = json::parse(ranks.out);
  const json by_threads = json::parse(threads.out);
  EXPECT_EQ(by_ranks.at("rehearsal"), "2 x h100-sxm, ndr");
  const json& steady = by_ranks.at("steady");
  EXPECT_EQ(steady.at("tokens_per_s"), by_threads.at("steady").at("tokens_per_s"));
  EXPECT_GT(steady.at("tokens_per_s").get<double>(), 0);
  EXPECT_EQ(steady.at("ledger").size(), 2u);
  EXPECT_LE(steady.at("efficiency").get<double>(), steady.at("reached").get<double>());
}

TEST_F(RehearsalTest, BenchTakesTheDescribedLimits) {
  const Finished bench = penstock({"bench", model_, "--device", "virtual", "--virtual", "h100-sxm",
                                   "--batch", "2", "--prompt", "8", "--generate", "8"});
  ASSERT_EQ(bench.code, 0) << bench;
  EXPECT_THAT(bench.out, AllOf(HasSubstr("A rehearsal of 1 x h100-sxm"), HasSubstr("as described"),
                               HasSubstr("3000.0 GB/s"), Not(HasSubstr("measured now"))));
}

TEST_F(RehearsalTest, WhatMakesNoSenseIsRefused) {
  const std::string output = folder_ / "output.jsonl";
  const auto refused = [&](const Arguments& options, const std::string& words) {
    const Finished finished =
        penstock(Arguments{"run", model_, "--input", input_, "--output", output} + options);
    EXPECT_EQ(finished.code, 1) << finished;
    EXPECT_THAT(finished.err, HasSubstr(words));
  };
  refused({"--device", "cpu"}, "only --device virtual runs it");
  refused({"--device", "virtual"}, "--device virtual needs --virtual SPEC");
  refused({"--virtual", "h100-sxm"}, "--virtual describes the devices of --device virtual");
  refused({"--virtual-realtime"}, "--virtual-realtime needs --device virtual");
  const Arguments rehearsed = {"--device", "virtual", "--virtual"};
  refused(rehearsed + Arguments{"h900"}, "no device 'h900'");
  refused(rehearsed + Arguments{folder_ / "none.json"}, "none.json");
  refused(rehearsed + Arguments{"h200", "--stage-dir", "/tmp"}, "--stage-dir copies weights");
  refused(rehearsed + Arguments{"h200", "--link", "nccl"}, "--link");
  refused(rehearsed + Arguments{"h200", "--kv-memory", "300G"}, "--kv-memory");
  const std::string small = folder_ / "small.json";
  std::ofstream(small) << R"({"device": {"like": "h200", "name": "small", "memory_bytes": 9.5}})";
  refused(rehearsed + Arguments{small}, "small.json: 'device': 'memory_bytes' must be");
  std::ofstream(small) << R"({"device": {"like": "h200", "name": "small",
                              "memory_bytes": 9000000000}})";
  refused(rehearsed + Arguments{small}, "memory for 13 of the 32 layers");
}

// The peak that the kernel begins with is that of whoever starts a program.
TEST_F(RehearsalTest, MemoryIsThatOfTheProgramAlone) {
  constexpr std::size_t kBytes = 400'000'000;
  const std::vector<char> held(kBytes, 1);
  const std::string output = folder_ / "out.jsonl";
  const Finished finished = penstock(run(output));
  ASSERT_EQ(finished.code, 0) << finished;
  const json stage = json::parse(read_bytes(output + ".job/ledger.json")).at("stages").at(0);
  EXPECT_LT(stage.at("peak_memory_bytes"), kBytes);
  EXPECT_GT(stage.at("peak_memory_bytes"), 10'000'000);
  EXPECT_GT(stage.at("open_files"), 3);
  EXPECT_GT(stage.at("thread_seconds"), 0);
}

}  // namespace
}  // namespace penstock::tests
