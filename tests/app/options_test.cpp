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
    {"convert", {"dtype", "force"}},
    {"synth", {"dtype", "seed", "no-data", "tokenizer", "force"}},
    {"inspect", {"tensors", "verify", "json"}},
    {"tokenize", {"decode", "no-special", "input"}},
    {"check", {"input", "input-format", "limit", "max-tokens", "max-context", "json"}},
    {"plan",
     {"input",    "input-format",  "limit",         "max-tokens", "max-context",     "sample",
      "prompt",   "records",       "generate",      "machine",    "measured",        "measured-on",
      "devices",  "stages",        "replicas",      "slots",      "max-step-tokens", "dtype",
      "kv-dtype", "kv-memory",     "json",          "sbatch",     "output",          "scripts",
      "max-time", "cpus-per-task", "sbatch-option", "force"}},
    {"run",
     {"task",
      "input",
      "input-format",
      "output",
      "limit",
      "part",
      "fresh",
      "verify-input",
      "time-limit",
      "drain-margin",
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
      "replicas",
      "layers",
      "link",
      "device",
      "virtual",
      "virtual-realtime",
      "threads",
      "dtype",
      "kv-dtype",
      "kv-memory",
      "max-context",
      "max-step-tokens",
      "slots",
      "stage-dir",
      "watchdog-seconds"}},
    {"bench", {"batch",           "prompt",           "generate",        "steady", "json",
               "calibrate",       "layers",           "stages",          "link",   "device",
               "virtual",         "virtual-realtime", "threads",         "dtype",  "kv-dtype",
               "kv-memory",       "max-context",      "max-step-tokens", "slots",  "stage-dir",
               "watchdog-seconds"}},
};

// The OpenMP library's own words for its setting; the last ones count, as the program starts itself
// once more.
std::string spin_count(const Arguments& settings) {
  const Finished shown = start(Arguments{"/usr/bin/env", "-u", "OMP_WAIT_POLICY", "-u",
                                         "GOMP_SPINCOUNT", "OMP_DISPLAY_ENV=verbose"} +
                               settings + Arguments{PENSTOCK_PROGRAM, "--version"});
  EXPECT_EQ(shown.code, 0) << shown;
  std::string last = shown.err;
  std::smatch match;
  std::string count = "none";
  for (const std::regex pattern("GOMP_SPINCOUNT = '(\\w+)'");
       std::regex_search(last, match, pattern); last = match.suffix()) {
    count = match[1];
  }
  return count;
}

TEST(Options, OpenMpSpinsShortlyUnlessTheUserChose) {
  EXPECT_EQ(spin_count({}), "10000");
  EXPECT_EQ(spin_count({"GOMP_SPINCOUNT=77"}), "77");
  EXPECT_EQ(spin_count({"OMP_WAIT_POLICY=passive"}), "0");
}

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
  const TemporaryFolder workplace;
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
  const TemporaryFolder workplace;
  const std::string input = workplace.write("input.jsonl", R"({"prompt": "Mr. Darcy"})");
  for (const auto& [text, named] :
       std::vector<std::pair<std::string, std::string>>{{"nonsense = 1\n", "nonsense"},
                                                        {"max-tokens = many\n", "max-tokens"},
                                                        {"[a]\nseed = 1\n", "a.seed"},
                                                        {"seed\n", "seed"},
                                                        {"seed = -4\n", "seed"},
                                                        {"fresh = maybe\n", "fresh"},
                                                        {"ignore-eos = 2\n", "ignore-eos"},
                                                        {"help = true\n", "help"},
                                                        {"config = b.ini\n", "config"}}) {
    const std::string config = workplace.write("job.ini", text);
    const Finished run = penstock({"run", kEmbeddedModel, "--config", config, "--input", input,
                                   "--output", workplace / "out"});
    EXPECT_EQ(run.code, 1) << run;
    EXPECT_THAT(run.errors(), testing::ElementsAre(HasSubstr(named))) << text;
  }
}

TEST(Options, SwitchesInTheConfigFileAreTrueOrFalse) {
  const TemporaryFolder workplace;
  const std::string input = workplace.write("input.jsonl", R"({"prompt": "Mr. Darcy"})");
  const std::string output = workplace / "out";
  const auto run = [&](const std::string& settings, const Arguments& options = {}) {
    const std::string config = workplace.write("job.ini", settings);
    return penstock(Arguments{"run", kEmbeddedModel, "--config", config, "--input", input,
                              "--output", output, "--max-tokens", "2"} +
                    options);
  };
  const auto ignores_eos = [&] {
    return json::parse(read_bytes(output + ".job/manifest.json")).at("parameters").at("ignore_eos");
  };
  const Finished off = run("fresh = false\nignore-eos = no\nquiet = off\nverbose = 0\n");
  EXPECT_EQ(off.code, 0) << off;
  EXPECT_NE(off.err, "");
  EXPECT_THAT(off.err, testing::Not(HasSubstr("bytes read")));
  EXPECT_EQ(ignores_eos(), false);
  const Finished again = run("fresh = false\nignore-eos = yes\n");  // what is there stays
  EXPECT_EQ(again.code, 1) << again;
  EXPECT_THAT(again.err, HasSubstr("--ignore-eos was false, is true"));
  EXPECT_EQ(ignores_eos(), false);
  const Finished on = run("fresh = true\nignore-eos = yes\nquiet = 1\n");
  EXPECT_EQ(on.code, 0) << on;
  EXPECT_EQ(on.err, "");
  EXPECT_EQ(ignores_eos(), true);
  EXPECT_EQ(run("fresh = false\n", {"--fresh"}).code, 0) << "the command line wins";

  const std::string settings = workplace.write("inspect.ini", "json = false\ntensors = on\n");
  const Finished text = penstock({"inspect", kEmbeddedModel, "--config", settings});
  EXPECT_EQ(text.code, 0) << text;
  EXPECT_FALSE(json::accept(text.out));
  EXPECT_THAT(text.out, HasSubstr("/layers/0005/attn/q"));
}

TEST(Options, ConfigFileThatIsAFolder) {
  const TemporaryFolder workplace;
  const Finished finished = penstock({"inspect", kEmbeddedModel, "--config", workplace / ""});
  EXPECT_EQ(finished.code, 1) << finished;
  EXPECT_THAT(finished.errors(), testing::ElementsAre(HasSubstr("--config file cannot be read")));
}

TEST(Options, HelpSaysTheDefaultsOfAnswers) {
  std::string help = penstock({"run", "--help"}).out;
  help = std::regex_replace(help, std::regex("\\s+"), " ");
  const auto text_of = [&](const std::string& option) {
    const std::size_t begin = help.find("--" + option + " ");
    EXPECT_NE(begin, std::string::npos) << option;
    return help.substr(begin, help.find(" --", begin + 1) - begin);
  };
  const std::vector<std::pair<std::string, std::string>> defaults = {
      {"max-tokens", "(default 256)"},
      {"temperature", "(default: the checkpoint's, else 0)"},
      {"top-k", "(default: the checkpoint's, else 0)"},
      {"top-p", "(default: the checkpoint's, else 1"},
      {"min-p", "(default: the checkpoint's, else 0"},
      {"repetition-penalty", "(default: the checkpoint's, else 1)"},
      {"presence-penalty", "(default 0)"},
      {"frequency-penalty", "(default 0)"},
      {"seed", "(default 0)"},
      {"stop", "(default: none)"},
  };
  for (const auto& [option, words] : defaults) EXPECT_THAT(text_of(option), HasSubstr(words));
}

}  // namespace
}  // namespace penstock::tests
