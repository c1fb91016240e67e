// penstock plan: from a checkpoint without weights to a job script.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class PlanTest : public testing::Test {
 protected:
  PlanTest() {
    const Finished made = penstock({"synth", "llama-3.1-8b", model_, "--no-data"});
    EXPECT_EQ(made.code, 0) << made;
  }
  Finished plan(const Arguments& more) {
    return penstock(Arguments{"plan", model_, "--machine", "h100-sxm,ndr"} + more);
  }

  const TemporaryFolder workplace_;
  const std::string model_ = workplace_ / "model.h5";
  const Arguments lengths_ = {"--prompt", "100", "--generate", "20", "--records", "200"};
};

TEST_F(PlanTest, NeedsShapesAndAMachineOnly) {
  const Finished text = plan(lengths_ + Arguments{"--devices", "4"});
  EXPECT_EQ(text.code, 0) << text;
  EXPECT_EQ(text.err, "");
  EXPECT_THAT(text.out, AllOf(HasSubstr("8.03 B parameters"), HasSubstr("\nsmallest "),
                              HasSubstr("\nbest "), HasSubstr("\nstages pay ")));
  const Finished machine_readable = plan(lengths_ + Arguments{"--devices", "4", "--json"});
  EXPECT_EQ(machine_readable.code, 0) << machine_readable;
  const json all = json::parse(machine_readable.out);
  EXPECT_EQ(all.at("records"), 200);
  const json& best = all.at("rows").at(all.at("best").get<std::size_t>());
  EXPECT_LE(best.at("devices"), 4);
  EXPECT_GT(best.at("seconds"), 0.0);
  EXPECT_EQ(best.at("ranks").size(), best.at("stages"));
}

// A token a byte.
TEST_F(PlanTest, ReadsTheDataset) {
  const std::string input = workplace_.write(
      "in.jsonl",
      "{\"prompt\": \"0123456\"}\n{\"prompt\": 3}\n{\"prompt\": \"012\", \"max_tokens\": 9}\n");
  const Finished finished =
      plan({"--input", input, "--max-tokens", "30", "--devices", "1", "--json"});
  EXPECT_EQ(finished.code, 0) << finished;
  const json all = json::parse(finished.out);
  EXPECT_EQ(all.at("records"), 2);
  EXPECT_EQ(all.at("records_failed"), 1);
  EXPECT_EQ(all.at("answers").at("tokens"), 39);
  EXPECT_EQ(all.at("answers_are_longest"), true);
  const json expected = json::parse(
      plan({"--input", input, "--max-tokens", "30", "--generate", "12", "--devices", "1", "--json"})
          .out);
  EXPECT_EQ(expected.at("answers").at("tokens"), 12 + 9);
}

TEST_F(PlanTest, WritesAJobButNotOverAFile) {
  const std::string script = workplace_ / "job.sbatch";
  const std::string scripts = std::string(PENSTOCK_SOURCE_DIR) + "/jobs/slurm";
  const Arguments job = lengths_ + Arguments{"--sbatch",       script,     "--scripts",
                                             scripts,          "--stages", "2",
                                             "--replicas",     "1",        "--sbatch-option",
                                             "--partition=gpu"};
  const Finished finished = plan(job);
  EXPECT_EQ(finished.code, 0) << finished;
  const std::string text = read_bytes(script);
  EXPECT_THAT(text, AllOf(HasSubstr("#SBATCH --ntasks=2\n"), HasSubstr("#SBATCH --nodes=2\n"),
                          HasSubstr("#SBATCH --partition=gpu\n"), HasSubstr("--stages 2"),
                          HasSubstr("export CKPT=" + model_ + "\n"), HasSubstr(": \"${INPUT:?")));
  // The layers of the plan that was shown.
  std::vector<int> layers;
  const json shown =
      json::parse(plan(lengths_ + Arguments{"--stages", "2", "--replicas", "1", "--json"}).out);
  for (const json& rank : shown.at("rows").at(0).at("ranks")) {
    layers.push_back(rank.at("end").get<int>() - rank.at("begin").get<int>());
  }
  EXPECT_THAT(text, AllOf(HasSubstr(fmt::format(" --layers {} ", fmt::join(layers, ","))),
                          HasSubstr(" --device cuda ")));
  EXPECT_THAT(plan(job).errors(), ElementsAre(HasSubstr("exists already; --force replaces it")));
  EXPECT_EQ(plan(job + Arguments{"--force"}).code, 0);
  EXPECT_THAT(plan(lengths_ + Arguments{"--sbatch", model_, "--force"}).errors(),
              ElementsAre(HasSubstr("would be written over")));
}

TEST_F(PlanTest, WritesNoJobWhoseAnswersReplaceItsRecords) {
  const std::string input = workplace_.write("in.jsonl", "{\"prompt\": \"0123\"}\n");
  const std::string script = workplace_ / "job.sbatch";
  EXPECT_THAT(plan({"--input", input, "--output", input, "--sbatch", script, "--scripts",
                    std::string(PENSTOCK_SOURCE_DIR) + "/jobs/slurm"})
                  .errors(),
              ElementsAre(HasSubstr("would be written over")));
  EXPECT_FALSE(std::filesystem::exists(script));
}

TEST_F(PlanTest, WritesNoJobOfYears) {
  const std::string script = workplace_ / "job.sbatch";
  const Finished finished =
      plan({"--prompt", "100", "--generate", "20", "--records", "9000000000000000000", "--sbatch",
            script, "--scripts", std::string(PENSTOCK_SOURCE_DIR) + "/jobs/slurm"});
  EXPECT_EQ(finished.code, 1) << finished;
  EXPECT_THAT(finished.errors(), ElementsAre(HasSubstr("more than a year")));
  EXPECT_FALSE(std::filesystem::exists(script));
}

TEST_F(PlanTest, TimesByMeasurement) {
  const Arguments one = {"--prompt", "100", "--generate", "20", "--records", "1", "--devices", "1"};
  EXPECT_THAT(plan(one + Arguments{"--measured"}).errors(),
              ElementsAre(HasSubstr("model.h5.calibration.json holds nothing")));
  const auto entry = [](int sharers, double layer) {
    return json{{"device", "some GPU"},
                {"numeric_class", "some class"},
                {"threads", 0},
                {"sharers", sharers},
                {"dtype", "bf16"},
                {"kv_dtype", "bf16"},
                {"network",
                 "llama hidden 4096, intermediate 14336, heads 32, KV heads 8, head size 128, "
                 "vocabulary 128256"},
                {"measured", "yesterday"},
                {"seconds",
                 {{"embedding", {{1, 0.0}}},
                  {"layer", {{1, layer}}},
                  {"head", {{1, 0.01}}},
                  {"attended", 0},
                  {"drawn", {{1, 1.0}}},
                  {"cached", 0}}}};
  };
  json file = {{"format", "penstock calibration"}, {"schema", 2}, {"entries", {entry(2, 0.001)}}};
  workplace_.write("model.h5.calibration.json", file.dump());
  // A step for the prompt, which gives the first token, and 19 more: each 32 layers and the head.
  const json measured = json::parse(plan(one + Arguments{"--measured", "--json"}).out);
  EXPECT_NEAR(measured.at("rows").at(0).at("seconds"), 20 * (32 * 0.001 + 0.01), 1e-4);
  EXPECT_THAT(measured.at("measured"), HasSubstr("some GPU, 2 ranks a GPU"));
  EXPECT_THAT(plan(one + Arguments{"--measured"}).out,
              HasSubstr("steps as measured on some GPU, 2 ranks a GPU"));
  // Without the option it is not looked at.
  EXPECT_EQ(json::parse(plan(one + Arguments{"--json"}).out).at("measured"), "");

  file["entries"].push_back(entry(1, 0.002));
  workplace_.write("model.h5.calibration.json", file.dump());
  EXPECT_THAT(plan(one + Arguments{"--measured"}).errors(), ElementsAre(HasSubstr("has several")));
  const json named = json::parse(plan(one + Arguments{"--measured-on", "1 rank", "--json"}).out);
  EXPECT_NEAR(named.at("rows").at(0).at("seconds"), 20 * (32 * 0.002 + 0.01), 1e-4);
}

TEST_F(PlanTest, WhatIsMissingIsNamed) {
  EXPECT_THAT(penstock({"plan", model_}).errors(), ElementsAre(HasSubstr("--machine SPEC")));
  EXPECT_THAT(plan({}).errors(), ElementsAre(HasSubstr("--input D, or --prompt N")));
  EXPECT_THAT(plan({"--input", workplace_ / "none"}).errors(),
              ElementsAre(HasSubstr("there is no such input file")));
  EXPECT_THAT(plan(lengths_ + Arguments{"--sbatch", workplace_ / "j", "--scripts", "/"}).errors(),
              ElementsAre(HasSubstr("holds no job.sh")));
  const std::string empty = workplace_.write("empty.jsonl", "nonsense\n");
  EXPECT_THAT(plan({"--input", empty, "--input-format", "jsonl"}).errors(),
              ElementsAre(HasSubstr("none of the 1 records read can be answered")));
}

TEST_F(PlanTest, CheckTellsWhatIsWrong) {
  const std::string input = workplace_.write(
      "in.jsonl",
      "{\"prompt\": \"0123456\"}\n{\"prompt\": 3}\n\n{\"prompt\": \"012\", \"top_p\": 9}\n");
  const Finished text = penstock({"check", model_, "--input", input});
  EXPECT_EQ(text.code, 2) << text;
  EXPECT_THAT(text.out, AllOf(HasSubstr("line 2: "), HasSubstr("line 4: "), HasSubstr("top_p"),
                              HasSubstr("3 records, JSONL: 1 can be answered, 2 cannot\n")));
  const json all = json::parse(penstock({"check", model_, "--input", input, "--json"}).out);
  EXPECT_EQ(all.at("records"), 3);
  EXPECT_EQ(all.at("failed").at(1).at("line"), 4);
  EXPECT_EQ(all.at("prompts").at("tokens"), 7);
  EXPECT_EQ(penstock({"check", model_, "--input", input, "--limit", "1"}).code, 0);
}

}  // namespace
}  // namespace penstock::tests
