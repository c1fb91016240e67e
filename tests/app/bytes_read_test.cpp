// Each rank reads its own stage of the checkpoint and nothing else of the weights.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;

// "stage 1 (rank 1, host n): read 1,371,648 of the checkpoint's 2,875,392 bytes, loaded in 0.1 s,
// …"
std::vector<std::uint64_t> printed_reads(const std::string& text, std::uint64_t file_bytes) {
  std::vector<std::uint64_t> reads;
  const std::regex line(
      R"(stage (\d+) \(rank (\d+), host \S+\): read ([\d,]+) of the checkpoint's ([\d,]+) bytes, loaded in .*)");
  const auto number = [](std::string digits) {
    std::erase(digits, ',');
    return std::stoull(digits);
  };
  for (const std::string& candidate : lines_of(text)) {
    std::smatch match;
    if (!std::regex_match(candidate, match, line)) continue;
    EXPECT_EQ(number(match[1]), reads.size());
    EXPECT_EQ(number(match[2]), reads.size());
    EXPECT_EQ(number(match[4]), file_bytes);
    reads.push_back(number(match[3]));
  }
  return reads;
}

TEST(BytesRead, AddUpToTheCheckpointOnAnyNumberOfRanks) {
  const TemporaryFolder workplace;
  const std::string input = workplace.write("input.jsonl", R"({"prompt": "Mr. Darcy"})");
  const std::uint64_t file_bytes = std::filesystem::file_size(kEmbeddedModel);
  for (const int ranks : {1, 2, 3, 4}) {
    SCOPED_TRACE(ranks);
    const std::string output = workplace / ("out-" + std::to_string(ranks));
    const Finished run =
        penstock_ranks(ranks, {"run", kEmbeddedModel, "--input", input, "--output", output,
                               "--max-tokens", "2", "--kv-memory", "16M", "--verbose"});
    ASSERT_EQ(run.code, 0) << run;
    const std::vector<std::uint64_t> reads = printed_reads(run.err, file_bytes);
    ASSERT_EQ(reads.size(), static_cast<std::size_t>(ranks)) << run;
    const json ledger = json::parse(read_bytes(output + ".job/ledger.json"));
    std::uint64_t sum = 0;
    for (std::size_t stage = 0; stage < reads.size(); ++stage) {
      EXPECT_EQ(ledger.at("stages").at(stage).at("bytes_read"), reads[stage]);
      EXPECT_GT(reads[stage], file_bytes / 10);
      if (ranks > 1) {
        EXPECT_LT(reads[stage], file_bytes * 2 / 3) << "more than its own stage";
      }
      sum += reads[stage];
    }
    EXPECT_LE(static_cast<double>(sum), 1.01 * static_cast<double>(file_bytes));
    EXPECT_GT(static_cast<double>(sum), 0.9 * static_cast<double>(file_bytes));
  }
}

// What the operating system is asked for, by whatever library, headers and checksums included.
TEST(BytesRead, OfTheWholeFileOnFourRanksAreLittleMoreThanItsSize) {
  if (std::string_view(PENSTOCK_TEST_SANITIZER).size() > 0) {
    GTEST_SKIP() << "a sanitizer must be the first library loaded";
  }
  const TemporaryFolder workplace;
  json config = tiny_llama_config(8);
  config["hidden_size"] = 512;
  config["intermediate_size"] = 2048;
  const std::string model = workplace / "model.h5";
  const Finished made = penstock({"synth", workplace.write("config.json", config.dump()), model});
  ASSERT_EQ(made.code, 0) << made;
  const std::string input = workplace.write("input.jsonl", R"({"prompt": "Mr. Darcy"})");
  const std::string log = workplace / "reads";
  Arguments command;
  std::istringstream mpirun(PENSTOCK_TEST_MPIRUN);
  for (std::string word; mpirun >> word;) command.push_back(word);
  const Finished run =
      start(command + Arguments{"4", "/usr/bin/env", "LD_PRELOAD=" PENSTOCK_TEST_COUNT_READS,
                                "PENSTOCK_READS_OF=" + model, "PENSTOCK_READS_LOG=" + log,
                                PENSTOCK_PROGRAM, "run", model, "--input", input, "--output",
                                workplace / "out", "--max-tokens", "2", "--kv-memory", "16M"});
  ASSERT_EQ(run.code, 0) << run;
  const std::vector<std::string> counts = lines_of(read_bytes(log));
  ASSERT_EQ(counts.size(), 4U);
  std::uint64_t sum = 0;
  for (const std::string& count : counts) sum += std::stoull(count);
  const auto file_bytes = static_cast<double>(std::filesystem::file_size(model));
  EXPECT_LE(static_cast<double>(sum), 1.01 * file_bytes);
  EXPECT_GE(static_cast<double>(sum), 0.99 * file_bytes);
}

TEST(BytesRead, ArePrintedOnlyWhenAskedFor) {
  const TemporaryFolder workplace;
  const std::string input = workplace.write("input.jsonl", R"({"prompt": "Mr. Darcy"})");
  const Arguments arguments = {
      "run", kEmbeddedModel, "--input", input,    "--output", workplace / "out", "--max-tokens",
      "2",   "--kv-memory",  "16M",     "--fresh"};
  const Finished plain = penstock(arguments);
  EXPECT_EQ(plain.code, 0) << plain;
  EXPECT_THAT(printed_reads(plain.err, 0), testing::IsEmpty());
  const Finished quiet = penstock(arguments + Arguments{"--quiet", "--verbose"});
  EXPECT_EQ(quiet.code, 0) << quiet;
  EXPECT_EQ(quiet.err, "");
  EXPECT_EQ(quiet.out, "");
}

}  // namespace
}  // namespace penstock::tests
