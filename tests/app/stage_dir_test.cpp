// --stage-dir: each rank copies its own part of the checkpoint to its node, and the next job finds
// it there.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/support/namespace.hpp"
#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ContainsRegex;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class StageDir : public testing::Test {
 protected:
  Arguments command(const std::string& output, const std::string& model = kEmbeddedModel) const {
    return {"run",          model, "--input",     input_, "--output",  output,
            "--max-tokens", "8",   "--kv-memory", "16M",  "--verbose", "--fresh"};
  }
  Arguments staged(const std::string& output, const std::string& model = kEmbeddedModel) const {
    return command(output, model) + Arguments{"--stage-dir", local_};
  }
  std::string undisturbed() const {
    const Finished run = penstock(command(workplace_ / "undisturbed"));
    EXPECT_EQ(run.code, 0) << run;
    return read_bytes(workplace_ / "undisturbed");
  }
  std::vector<std::string> copies() const {
    std::vector<std::string> paths;
    for (const auto& entry : fs::directory_iterator(local_)) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    return paths;
  }
  // The folder is made by the program.
  TemporaryFolder workplace_;
  std::string input_ = workplace_.write("input.jsonl", R"({"prompt": "Mr. Darcy"})"
                                                       "\n"
                                                       R"({"prompt": "Elizabeth", "seed": 3})");
  std::string output_ = workplace_ / "output.jsonl";
  std::string local_ = workplace_ / "node/local";
};

TEST_F(StageDir, IsFilledByTheFirstRunAndFoundByTheNext) {
  const std::string expected = undisturbed();
  const Finished first = penstock_ranks(2, staged(output_));
  ASSERT_EQ(first.code, 0) << first;
  EXPECT_EQ(read_bytes(output_), expected);
  EXPECT_THAT(first.err, Not(HasSubstr("warning: rank")));
  for (const char* stage : {"stage 0", "stage 1"}) {
    EXPECT_THAT(first.err,
                ContainsRegex(std::string(stage) + ".*: read [0-9,]+ of the .* bytes, copied to " +
                              local_ + " in .* s, loaded in "));
  }
  const std::vector<std::string> made = copies();
  ASSERT_EQ(made.size(), 2u);

  const Finished second = penstock_ranks(2, staged(output_));
  ASSERT_EQ(second.code, 0) << second;
  EXPECT_EQ(read_bytes(output_), expected);
  for (const char* stage : {"stage 0", "stage 1"}) {
    EXPECT_THAT(second.err,
                ContainsRegex(std::string(stage) + ".*: read 0 of the .* bytes, found in " +
                              local_ + ", loaded in "));
  }
  EXPECT_EQ(copies(), made);

  // Other layers are other copies. Stages may be threads of one process.
  const Finished other = penstock(staged(output_) + Arguments{"--stages", "3", "--link", "local"});
  ASSERT_EQ(other.code, 0) << other;
  EXPECT_EQ(read_bytes(output_), expected);
  EXPECT_EQ(copies().size(), 5u);
}

// What the operating system is asked for.
TEST_F(StageDir, LeavesOnlyTheStructureToBeReadFromTheCheckpoint) {
  if (std::string_view(PENSTOCK_TEST_SANITIZER).size() > 0) {
    GTEST_SKIP() << "a sanitizer must be the first library loaded";
  }
  json config = tiny_llama_config(8);
  config["hidden_size"] = 512;
  config["intermediate_size"] = 2048;
  const std::string model = workplace_ / "model.h5";
  const Finished made = penstock({"synth", workplace_.write("config.json", config.dump()), model});
  ASSERT_EQ(made.code, 0) << made;
  Arguments run;
  std::istringstream mpirun(PENSTOCK_TEST_MPIRUN);
  for (std::string word; mpirun >> word;) run.push_back(word);
  std::vector<std::uint64_t> sums;
  for (const char* log : {"first", "second"}) {
    const Finished finished =
        start(run +
              Arguments{"2", "/usr/bin/env", "LD_PRELOAD=" PENSTOCK_TEST_COUNT_READS,
                        "PENSTOCK_READS_OF=" + model, "PENSTOCK_READS_LOG=" + (workplace_ / log),
                        PENSTOCK_PROGRAM} +
              staged(output_, model));
    ASSERT_EQ(finished.code, 0) << finished;
    sums.push_back(0);
    for (const std::string& line : lines_of(read_bytes(workplace_ / log))) {
      sums.back() += std::stoull(line);
    }
  }
  const std::uint64_t file_bytes = fs::file_size(model);
  EXPECT_GE(sums[0], file_bytes);
  EXPECT_LE(sums[0], file_bytes * 102 / 100);
  EXPECT_GT(sums[1], 0u);
  EXPECT_LE(sums[1], file_bytes * 2 / 100);
}

TEST_F(StageDir, DamagedCopyIsRemovedAndTheCheckpointRead) {
  const std::string expected = undisturbed();
  ASSERT_EQ(penstock_ranks(2, staged(output_)).code, 0);
  // The copy of stage 1 ends with the file's last tensor; one byte of its weights.
  const std::vector<std::string> all = copies();
  const std::string end = fmt::format("-{}.h5", fs::file_size(kEmbeddedModel) - 1);
  const std::string copy = all.at(all.at(0).ends_with(end) ? 0 : 1);
  {
    std::fstream file(copy, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-1000, std::ios::end);
    const int byte = file.get();
    file.seekp(-1000, std::ios::end);
    file.put(static_cast<char>(byte ^ 1));
  }
  const Finished run = penstock_ranks(2, staged(output_));
  ASSERT_EQ(run.code, 0) << run;
  EXPECT_EQ(read_bytes(output_), expected);
  EXPECT_THAT(run.err, ContainsRegex("warning: rank 1, host .*: " + copy +
                                     ": tensor /head/weight, .*wrong checksum.*; the copy was "
                                     "removed, the checkpoint itself is read"));
  EXPECT_FALSE(fs::exists(copy));

  // One whose structure is damaged is made again before that.
  ASSERT_EQ(penstock_ranks(2, staged(output_)).code, 0);
  fs::resize_file(copy, 5000);
  const Finished again = penstock_ranks(2, staged(output_));
  ASSERT_EQ(again.code, 0) << again;
  EXPECT_EQ(read_bytes(output_), expected);
  EXPECT_THAT(again.err,
              AllOf(ContainsRegex("warning: rank 1, host .*: " + copy +
                                  ": .*; the copy "
                                  "was removed and is made again"),
                    ContainsRegex("stage 1 .*copied to "), ContainsRegex("stage 0 .*found in ")));
  EXPECT_EQ(copies(), all);
}

TEST_F(StageDir, FullDiskIsOneErrorWithNothingLeftBehind) {
  if (!can_mount()) GTEST_SKIP() << "no file system can be mounted here";
  fs::create_directories(local_);
  std::string run;
  for (const std::string& word : by_mpirun(2, staged(output_))) run += word + " ";
  // Room for nothing, and for one rank of two: what the first has taken, the second cannot.
  for (const char* size : {"100k", "2m"}) {
    SCOPED_TRACE(size);
    const Finished finished = in_namespace(
        fmt::format("mount -t tmpfs -o size={} none {}\n{}\ncode=$?; ls {}; exit $code", size,
                    local_, run, local_));
    EXPECT_EQ(finished.code, 1) << finished;
    EXPECT_THAT(finished.errors(),
                ElementsAre(ContainsRegex(local_ + ": has no room for .*needs [0-9]+ bytes, [0-9]+ "
                                                   "are free")))
        << finished;
    if (size == std::string_view("100k")) {
      EXPECT_EQ(finished.out, "");
    }
    EXPECT_FALSE(fs::exists(output_));
  }
}

TEST_F(StageDir, OfNoNameIsRefused) {
  const Finished run = penstock(command(output_) + Arguments{"--stage-dir", ""});
  EXPECT_EQ(run.code, 1) << run;
  EXPECT_THAT(run.errors(), ElementsAre(HasSubstr("--stage-dir"))) << run;
}

TEST_F(StageDir, ServesBenchToo) {
  const Arguments bench{"bench", kEmbeddedModel, "--batch", "1",           "--prompt",
                        "8",     "--generate",   "4",       "--stage-dir", local_};
  for (const char* note : {", copied to ", ", found in "}) {
    const Finished run = penstock(bench);
    EXPECT_EQ(run.code, 0) << run;
    EXPECT_THAT(run.out, HasSubstr(note + local_)) << run;
  }
}

}  // namespace
}  // namespace penstock::tests
