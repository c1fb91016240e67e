// What commands read and write: streams that fail, files that are there already, links, and ranks.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

void expect_refused(const Finished& finished, const std::string& named) {
  EXPECT_EQ(finished.code, 1) << finished;
  EXPECT_THAT(finished.errors(), ElementsAre(HasSubstr(named))) << finished;
}

TEST(Streams, StandardOutputThatIsFull) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  const std::string program = PENSTOCK_PROGRAM;
  for (const std::string& command :
       {std::string("--help"), std::string("--version"), std::string("run --help"),
        "inspect " + kEmbeddedModel + " --json", "tokenize " + kEmbeddedModel,
        "bench " + kEmbeddedModel + " --batch 1 --prompt 4 --generate 4 --kv-memory 16M"}) {
    SCOPED_TRACE(command);
    expect_refused(
        start({"/bin/sh", "-c", program + " " + command + " > /dev/full"}, "Mr. Darcy\n"),
        "standard output cannot be written");
  }
}

TEST(Streams, TokenizeOfAFolder) {
  const TemporaryFolder workplace;
  const std::string folder = workplace / "";
  expect_refused(penstock({"tokenize", kEmbeddedModel, "--input", folder}), folder);
  expect_refused(
      start({"/bin/sh", "-c",
             std::string(PENSTOCK_PROGRAM) + " tokenize " + kEmbeddedModel + " < " + folder}),
      "standard input: cannot be read");
}

TEST(Streams, DecodeOfIdsThatAreNoTokens) {
  const Finished good = penstock({"tokenize", kEmbeddedModel, "--decode"}, "86 92\n0\n");
  EXPECT_EQ(good.code, 0) << good;
  for (const char* id : {"1024", "-1", "2147483647"}) {
    expect_refused(
        penstock({"tokenize", kEmbeddedModel, "--decode"}, std::string("86 92\n86 ") + id + "\n"),
        std::string("line 2: the vocabulary has no token ") + id);
  }
}

TEST(Destinations, AreReplacedOnlyByForce) {
  const TemporaryFolder workplace;
  const std::string config = workplace.write("config.json", tiny_llama_config(2).dump());
  const std::string path = workplace.write("model.h5", "precious");
  const std::string folder = workplace / "hf";
  expect_refused(penstock({"synth", config, path, "--no-data"}),
                 path + ": exists already; --force");
  expect_refused(penstock({"convert", config, path}), path + ": exists already; --force");
  EXPECT_EQ(read_bytes(path), "precious");
  const Finished made = penstock({"synth", config, path, "--no-data", "--force"});
  EXPECT_EQ(made.code, 0) << made;
  EXPECT_EQ(penstock({"inspect", path}).code, 0);
  expect_refused(penstock({"synth", config, "/dev/null", "--no-data", "--force"}),
                 "/dev/null: is not a regular file");
}

TEST(Destinations, ThatAreLinksStayLinks) {
  const TemporaryFolder workplace;
  fs::create_directory(workplace / "scratch");
  const std::string config = workplace.write("config.json", tiny_llama_config(2).dump());
  const std::string input = workplace.write("input.jsonl", R"({"prompt": "Mr. Darcy"})");
  const std::string model = workplace / "model.h5";
  fs::create_symlink("scratch/model.h5", model);
  ASSERT_EQ(penstock({"synth", config, model, "--no-data"}).code, 0);
  EXPECT_TRUE(fs::is_symlink(model));
  EXPECT_TRUE(fs::is_regular_file(workplace / "scratch/model.h5"));

  const std::string output = workplace / "out";
  fs::create_symlink(workplace / "scratch/answers", output);
  const Arguments job{"run",      kEmbeddedModel, "--input",      input,
                      "--output", output,         "--max-tokens", "2"};
  const Finished run = penstock(job);
  EXPECT_EQ(run.code, 0) << run;
  EXPECT_TRUE(fs::is_symlink(output));
  EXPECT_EQ(read_rows(workplace / "scratch/answers").size(), 1U);
  EXPECT_TRUE(fs::exists(workplace / "out.job/state"));
  EXPECT_EQ(penstock(job).code, 0);  // nothing to do
  fs::remove_all(workplace / "out.job");
  expect_refused(penstock(job), "scratch/answers: exists already");
  fs::resize_file(workplace / "scratch/answers", 0);
  EXPECT_EQ(penstock(job + Arguments{"--fresh"}).code, 0);
  EXPECT_TRUE(fs::is_symlink(output));
  EXPECT_EQ(read_rows(workplace / "scratch/answers").size(), 1U);
}

TEST(Ranks, CommandsOfOneProcessRefuseMore) {
  const TemporaryFolder workplace;
  const std::string path = workplace / "model.h5";
  for (const Arguments& command :
       {Arguments{"inspect", kEmbeddedModel}, Arguments{"tokenize", kEmbeddedModel},
        Arguments{"synth", "smollm2-135m", path, "--no-data"}, Arguments{"convert", "a", path}}) {
    const Finished finished = penstock_ranks(3, command);
    expect_refused(finished,
                   "penstock " + command[0] + " works in one process, but 3 were started");
    EXPECT_EQ(finished.out, "");
  }
  EXPECT_FALSE(fs::exists(path));
  EXPECT_EQ(penstock_ranks(1, {"inspect", kEmbeddedModel}).code, 0);
}

}  // namespace
}  // namespace penstock::tests
