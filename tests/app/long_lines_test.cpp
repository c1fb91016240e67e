// Lines that are longer than a record may be.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// 65 MiB between two records; the input is a hole there.
TEST(LongLines, GetAnErrorRow) {
  const TemporaryFolder workplace;
  const std::string input = workplace.write("input.jsonl", "{\"prompt\": \"Mr. Darcy\"}\n");
  std::filesystem::resize_file(input, std::filesystem::file_size(input) + (65u << 20));
  std::ofstream(input, std::ios::app) << "\n{\"prompt\": \"Her mother\"}\n";
  const std::string output = workplace / "output.jsonl";
  const Finished finished =
      penstock({"run", kEmbeddedModel, "--input", input, "--output", output, "--kv-memory", "32M",
                "--max-tokens", "4", "--progress", "none"});
  EXPECT_EQ(finished.code, 2) << finished;
  const std::vector<json> rows = read_rows(output);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_FALSE(rows[0].contains("error"));
  EXPECT_FALSE(rows[2].contains("error"));
  EXPECT_EQ(rows[1].at("index"), 1);
  EXPECT_EQ(rows[1].at("id"), nullptr);
  EXPECT_EQ(rows[1].at("finish_reason"), "error");
  EXPECT_EQ(rows[1].at("error").at("line"), 2);
  EXPECT_THAT(rows[1].at("error").at("message").get<std::string>(),
              HasSubstr("the line has 68157440 bytes; a record may have 67108864 (64 MiB)"));
}

}  // namespace
}  // namespace penstock::tests
