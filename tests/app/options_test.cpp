// Help, version, and options from a file.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// DESIGN: the options whose names are fixed, as far as this version has them.
const std::map<std::string, std::vector<std::string>> kOptions = {
    {"convert", {"dtype"}},
    {"synth", {"dtype", "seed", "no-data", "tokenizer"}},
    {"inspect", {"tensors", "verify", "json"}},
    {"tokenize", {"decode", "no-special", "input"}},
    {"run",
     {"task",
      "input",
      "output",
      "limit",
      "fresh",
      "progress",
      "quiet",
      "verbose",
      "max-tokens",
      "temperature",
      "top-k",
      "top-p",
      "min-p",
      "repetition-penalty",
      "presence-penalty",
      "frequency-penalty",
      "seed",
      "stop",
      "ignore-eos",
      "stages",
      "link",
      "device",
      "threads",
      "dtype",
      "kv-dtype",
      "kv-memory",
      "max-context",
      "max-step-tokens",
      "slots"}},
    {"bench",
     {"batch", "prompt", "generate", "json", "stages", "link", "device", "threads", "dtype",
      "kv-dtype", "kv-memory", "max-context", "max-step-tokens", "slots"}},
};

TEST(Options, HelpOfEachCommandNamesAllItsOptions) {
  const Finished program = penstock({"--help"});
  EXPECT_EQ(program.code, 0) << program;
  EXPECT_EQ(program.err, "");
  EXPECT_EQ(penstock({"-h"}).out, program.out);
  for (const auto& [command, options] : kOptions) {
    SCOPED_TRACE(command);
    EXPECT_THAT(program.out, HasSubstr("\n  " + command + " "));
    const Finished help = penstock({command, "--help"});
    EXPECT_EQ(help.code, 0) << help;
    EXPECT_EQ(help.err, "");
    EXPECT_THAT(help.out, HasSubstr("usage: penstock " + command));
    std::set<std::string> expected(options.begin(), options.end());
    expected.insert({"help", "config"});
    std::set<std::string> named;
    const std::regex option(R"(\n  (?:-\w \[ )?--([a-z-]+))");
    for (std::sregex_iterator it(help.out.begin(), help.out.end(), option), end; it != end; ++it) {
      named.insert((*it)[1]);
    }
    EXPECT_EQ(named, expected);
    EXPECT_EQ(penstock({command, "-h"}).out, help.out);
  }
}

TEST(Options, VersionAndUnknownCommand) {
  const Finished version = penstock({"--version"});
  EXPECT_EQ(version.code, 0);
  // The second line: only where the program was built with CUDA.
  EXPECT_THAT(version.out,
              testing::ContainsRegex("^penstock [0-9]+\\.[0-9]+\\.[0-9]+\n"
                                     "(CUDA [0-9]+\\.[0-9], NCCL [0-9]+\\.[0-9]+\\.[0-9]+\n)?$"));
  const Finished unknown = penstock({"frobnicate"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.errors(), testing::ElementsAre(HasSubstr("'frobnicate'")));
  const Finished nothing = penstock(Arguments{});
  EXPECT_EQ(nothing.code, 1);
  EXPECT_THAT(nothing.out, HasSubstr("usage: penstock"));
}

TEST(Options, CommandLineWinsOverTheConfigFile) {
  const Workplace workplace;
  const std::string input = workplace.write("input.jsonl", R"({"prompt": "Mr. Darcy"})");
  const std::string output = workplace / "out";
  const std::string config = workplace.write(
      "job.ini", "# a job\ninput = " + input + "\noutput = " + output +
                     "\nmax-tokens = 5\ntemperature = 0.5\nseed = 7\nstop = one\nstop = two\n"
                     "fresh = true\nkv-memory = 16M\nignore-eos = true\n");
  const auto parameters = [&](const Arguments& options) {
    const Finished run = penstock(Arguments{"run", kEmbeddedModel, "--config", config} + options);
    EXPECT_EQ(run.code, 0) << run;
    return json::parse(read_bytes(output + ".job/manifest.json")).at("parameters");
  };
  const json from_file = parameters({});
  EXPECT_EQ(from_file.at("max_tokens"), 5);
  EXPECT_EQ(from_file.at("temperature"), 0.5);
  EXPECT_EQ(from_file.at("seed"), 7);
  EXPECT_EQ(from_file.at("stop"), json({"one", "two"}));
  EXPECT_EQ(from_file.at("ignore_eos"), true);
  EXPECT_EQ(read_rows(output).at(0).at("usage").at("completion_tokens"), 5);
  const json both = parameters({"--max-tokens", "3", "--seed", "18446744073709551615"});
  EXPECT_EQ(both.at("max_tokens"), 3);
  EXPECT_EQ(both.at("seed"), UINT64_MAX);
  EXPECT_EQ(both.at("temperature"), 0.5);
  EXPECT_EQ(read_rows(output).at(0).at("usage").at("completion_tokens"), 3);
}

TEST(Options, MistakesInTheConfigFileAreNamed) {
  const Workplace workplace;
  const std::string input = workplace.write("input.jsonl", R"({"prompt": "Mr. Darcy"})");
  for (const auto& [text, named] :
       std::vector<std::pair<std::string, std::string>>{{"nonsense = 1\n", "nonsense"},
                                                        {"max-tokens = many\n", "max-tokens"},
                                                        {"[a]\nseed = 1\n", "a.seed"},
                                                        {"seed\n", "seed"},
                                                        {"seed = -4\n", "seed"}}) {
    const std::string config = workplace.write("job.ini", text);
    const Finished run = penstock({"run", kEmbeddedModel, "--config", config, "--input", input,
                                   "--output", workplace / "out"});
    EXPECT_EQ(run.code, 1) << run;
    EXPECT_THAT(run.errors(), testing::ElementsAre(HasSubstr(named))) << text;
  }
}

}  // namespace
}  // namespace penstock::tests
