// Wrong use: all ranks end soon, with exit code 1 and one message that names the thing.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "comm/device/gpu.hpp"
#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::chrono::seconds kSoon{5};

class Errors : public testing::Test {
 protected:
  Arguments run_with(const Arguments& options, const std::string& model = kEmbeddedModel) const {
    return Arguments{"run", model, "--input", input_, "--output", output_} + options;
  }

  static void expect_one_message(const Finished& finished, const std::string& named) {
    EXPECT_FALSE(finished.hung) << finished;
    EXPECT_EQ(finished.code, 1) << finished;
    EXPECT_THAT(finished.errors(), ElementsAre(HasSubstr(named))) << finished;
  }

  void expect_nothing_written() const {
    EXPECT_FALSE(std::filesystem::exists(output_));
    EXPECT_FALSE(std::filesystem::exists(output_ + ".job"));
  }

  TemporaryFolder workplace_;
  std::string input_ = workplace_.write("input.jsonl", R"({"prompt": "Mr. Darcy"})");
  std::string output_ = workplace_ / "output.jsonl";
};

TEST_F(Errors, MissingCheckpointOnFourRanks) {
  const std::string model = workplace_ / "nowhere.h5";
  expect_one_message(penstock_ranks(4, run_with({}, model), kSoon), model + ": cannot open");
  expect_nothing_written();
}

TEST_F(Errors, FewerLayersThanRanks) {
  const std::string model = synthesize(workplace_, 3);
  expect_one_message(penstock_ranks(4, run_with({}, model), kSoon),
                     "the model has 3 layers, too few for 4 stages");
  expect_nothing_written();
  expect_one_message(penstock(run_with({"--stages", "4"}, model)),
                     "the model has 3 layers, too few for 4 stages");
  expect_nothing_written();
  // And as many as there are is enough.
  const Finished run = penstock(run_with({"--stages", "3", "--max-tokens", "2"}, model));
  EXPECT_EQ(run.code, 0) << run;
}

TEST_F(Errors, OptionsThatAreWrongOnAllRanks) {
  expect_one_message(penstock_ranks(4, run_with({"--bogus", "3"}), kSoon), "'--bogus'");
  expect_one_message(penstock_ranks(2, run_with({"--temperature", "-3"}), kSoon), "--temperature");
  expect_one_message(penstock_ranks(2, run_with({"--link", "local"}), kSoon), "--link local");
  expect_one_message(penstock_ranks(2, run_with({"--stages", "3"}), kSoon), "--stages 3");
  expect_nothing_written();
}

TEST_F(Errors, FilesThatAreNotThereOrThere) {
  const std::string nothing = workplace_ / "nothing.jsonl";
  expect_one_message(
      penstock_ranks(3, {"run", kEmbeddedModel, "--input", nothing, "--output", workplace_ / "new"},
                     kSoon),
      nothing);
  workplace_.write("output.jsonl", "precious");
  expect_one_message(penstock_ranks(2, run_with({}), kSoon), output_ + ": exists already");
  EXPECT_EQ(read_bytes(output_), "precious");
  EXPECT_FALSE(std::filesystem::exists(output_ + ".job"));
}

// Two ranks with options of their own: mpirun -n 1 A : -n 1 B.
Finished two_ranks(const Arguments& first, const Arguments& second) {
  Arguments command;
  std::istringstream mpirun(PENSTOCK_TEST_MPIRUN);
  for (std::string word; mpirun >> word;) command.push_back(word);
  const Arguments program{"1", PENSTOCK_PROGRAM};
  return start(command + program + first + Arguments{":", "-n"} + program + second, "", kSoon);
}

TEST_F(Errors, ConfigFileThatOneRankLacks) {
  const Arguments good = run_with({"--max-tokens", "2"});
  expect_one_message(two_ranks(good, good + Arguments{"--config", "missing.ini"}),
                     "missing.ini: this --config file cannot be read (rank 1, host ");
  expect_nothing_written();
}

TEST_F(Errors, RanksThatDoNotAgree) {
  const auto refused = [&](const Arguments& first, const Arguments& second,
                           const std::string& named) {
    SCOPED_TRACE(named);
    expect_one_message(two_ranks(first, second), named);
    expect_nothing_written();
  };
  const Arguments base = run_with({"--max-tokens", "2"});
  refused(base + Arguments{"--slots", "3"}, base + Arguments{"--slots", "5"},
          "--slots is 5 here, but 3 on stage 0: give all ranks the same (stage 1, rank 1, host ");
  refused(base, base + Arguments{"--max-step-tokens", "64"}, "--max-step-tokens is 64 here, but ");
  refused(base + Arguments{"--device", "cpu"}, base, "--device is \"auto\" here, but \"cpu\" on ");
  refused(base, base + Arguments{"--kv-dtype", "f32"}, "--kv-dtype is \"f32\" here, but ");
  refused(base + Arguments{"--max-context", "100"}, base, "--max-context is ");
  refused(base, base + Arguments{"--stages", "3"}, "--stages 3 needs a multiple of 3 ranks");
  refused(base, base + Arguments{"--replicas", "2"},
          "mean 1 replicas of 2 stages on rank 0, but 2 replicas of 1 stages on rank 1");
  refused(base + Arguments{"--link", "local"}, base, "--link local runs all stages in one process");
  refused(base, run_with({"--max-tokens", "2"}, synthesize(workplace_, 3)),
          "the checkpoint's digest is ");
}

TEST_F(Errors, OneProcess) {
  struct Case {
    Arguments options;
    std::string named;
  };
  const std::vector<Case> cases = {
      {{"--limit", "-1"}, "--limit '-1'"},
      {{"--seed", "-1"}, "--seed '-1'"},
      {{"--seed", "18446744073709551616"}, "--seed '18446744073709551616'"},
      {{"--threads", "100000"}, "--threads 100000"},
      {{"--threads", "-1"}, "--threads -1"},
      {{"--slots", "2147483647"}, "--slots 2147483647"},
      {{"--max-step-tokens", "0"}, "--max-step-tokens 0"},
      {{"--max-step-tokens", "2147483647"}, "--max-step-tokens 2147483647"},
      {{"--max-context", "99999999999"}, "--max-context 99999999999"},
      {{"--max-tokens", "0"}, "--max-tokens"},
      {{"--max-tokens", "x"}, "--max-tokens"},
      {{"--top-p", "1.5"}, "--top-p"},
      {{"--top-p", "nan"}, "--top-p"},
      {{"--temperature", "inf"}, "--temperature"},
      {{"--repetition-penalty", "0"}, "--repetition-penalty"},
      {{"--kv-memory", "1"}, "--kv-memory"},
      {{"--kv-memory", "lots"}, "--kv-memory 'lots'"},
      {{"--kv-memory", "9999999T"}, "--kv-memory"},
      {{"--kv-memory", "9999T"}, "more than the"},
      {{"--dtype", "f16", "--device", "cpu"}, "--dtype f16 needs a GPU"},
      {{"--dtype", "int8"}, "--dtype 'int8'"},
      {{"--kv-dtype", "int8"}, "--kv-dtype 'int8'"},
      {{"--kv-dtype", "f16", "--device", "cpu"}, "--kv-dtype f16 needs a GPU"},
      {{"--device", "gpu"}, "--device 'gpu' is not known: auto, cpu, cuda"},
      {{"--device", "cuda", "--stages", "2"}, "start 2 ranks with mpirun or srun"},
      {{"--link", "ib"}, "--link 'ib' is not known: auto, local, mpi, nccl"},
      {{"--link", "nccl", "--device", "cpu"}, "--link nccl connects GPUs"},
      {{"--link", "mpi", "--stages", "2"}, "--stages 2"},
      {{"--stages", "-1"}, "--stages -1"},
      {{"--progress", "maybe"}, "--progress 'maybe'"},
      {{"--task", "score"}, "--task 'score'"},
      {{"--stop", ""}, "--stop"},
      {{"--temp", "1"}, "'--temp'"},  // no guessing
      {{"--config", "missing.ini"}, "missing.ini"},
      {{"another"}, "positional"},
      {{"--input", "again"}, "--input"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::PrintToString(c.options));
    expect_one_message(penstock(run_with(c.options)), c.named);
    expect_nothing_written();
  }
  expect_one_message(penstock({"run"}), "CKPT is missing");
  expect_one_message(penstock({"run", kEmbeddedModel}), "--input is missing");
  expect_one_message(penstock({"run", kEmbeddedModel, "--input", input_}), "--output is missing");
}

// The driver's words, from one rank, before anything is opened.
TEST_F(Errors, CudaWithoutAGpu) {
  const comm::device::GpuSurvey survey = comm::device::survey_gpus();
  if (!survey.gpus.empty()) GTEST_SKIP() << "this machine has a GPU";
  const std::string words = survey.runtime_version > 0 ? "cudaError" : "built without CUDA";
  ASSERT_THAT(survey.none, testing::HasSubstr(words));
  const Arguments cuda = {"--device", "cuda"};
  expect_one_message(penstock(run_with(cuda)), "--device cuda: " + survey.none);
  expect_one_message(penstock({"bench", kEmbeddedModel, "--device", "cuda"}),
                     "--device cuda: " + survey.none);
  const Finished two = penstock_ranks(2, run_with(cuda), kSoon);
  expect_one_message(two, "--device cuda: rank 0, host ");
  expect_one_message(two, survey.none);
  expect_one_message(penstock_ranks(2, run_with({"--link", "nccl"}), kSoon),
                     "--link nccl connects GPUs, and this run computes on CPUs");
  expect_nothing_written();
}

TEST_F(Errors, FreshNeverRemovesWhatTheRunReads) {
  const std::string model = workplace_.write("model.h5", read_bytes(kEmbeddedModel));
  const std::string same_input = std::filesystem::path(input_).parent_path() / "." / "input.jsonl";
  const std::string before = read_bytes(input_);
  expect_one_message(penstock({"run", model, "--input", input_, "--output", same_input, "--fresh"}),
                     "is the input itself");
  expect_one_message(penstock({"run", model, "--input", input_, "--output", model, "--fresh"}),
                     "is the checkpoint itself");
  EXPECT_EQ(read_bytes(input_), before);
  EXPECT_TRUE(read_bytes(model) == read_bytes(kEmbeddedModel));
}

// A disk that is full from some byte on, by the shell's limit on a file's size.
TEST_F(Errors, DiskThatFillsUpLeavesTheStateBroken) {
  std::string records;
  for (int i = 0; i < 20000; ++i) records += "{\"prompt\": \"Mr. Darcy\", \"max_tokens\": 1}\n";
  const std::string command = "trap '' XFSZ; ulimit -f 1000; exec " PENSTOCK_PROGRAM " run " +
                              kEmbeddedModel + " --input " +
                              workplace_.write("many.jsonl", records) + " --output " + output_ +
                              " --kv-memory 16M";
  const Finished run = start({"/bin/bash", "-c", command});
  expect_one_message(run, "journal-0000.jsonl: cannot write");
  EXPECT_FALSE(std::filesystem::exists(output_));
  const auto state = nlohmann::json::parse(read_bytes(output_ + ".job/state"));
  EXPECT_EQ(state.at("state"), "broken");
  EXPECT_GT(state.at("finished"), 0);
  // How much was written before depends on the machine's speed, and the disk may be full in the
  // middle of a row, but all others are whole.
  const std::string journal = read_bytes(output_ + ".job/journal-0000.jsonl");
  const std::size_t end = journal.rfind('\n');
  ASSERT_NE(end, std::string::npos);
  for (const std::string& row : lines_of(journal.substr(0, end + 1))) {
    EXPECT_TRUE(nlohmann::json::accept(row)) << row;
  }
}

TEST_F(Errors, OutputThatCannotBeMade) {
  const std::string folder = workplace_ / "missing" + std::string("/out");
  expect_one_message(penstock({"run", kEmbeddedModel, "--input", input_, "--output", folder}),
                     folder);
  std::filesystem::create_directory(output_);
  expect_one_message(penstock(run_with({"--fresh"})), output_ + ": is a folder");
}

TEST_F(Errors, ShapesOnlyModelIsRefused) {
  const std::string config = workplace_.write("config.json", tiny_llama_config(2).dump());
  const std::string model = workplace_ / "shapes.h5";
  ASSERT_EQ(penstock({"synth", config, model, "--no-data"}).code, 0);
  expect_one_message(penstock(run_with({}, model)), model + ": holds shapes only");
  expect_nothing_written();
}

}  // namespace
}  // namespace penstock::tests
