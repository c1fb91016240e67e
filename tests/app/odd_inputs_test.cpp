// Inputs as other systems and careless hands make them: marks, line ends, NULs, ids that repeat,
// prompts of megabytes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

class OddInputs : public testing::Test {
 protected:
  // The exit code; rows() tells the rest.
  int run(const std::string& name, const std::string& text, const Arguments& options = {}) {
    const Finished finished =
        penstock(Arguments{"run", kEmbeddedModel, "--input", workplace_.write(name, text),
                           "--output", output_, "--progress", "none", "--fresh", "--kv-memory",
                           "32M", "--max-tokens", "6"} +
                 options);
    EXPECT_FALSE(finished.hung || finished.code < 0) << finished;
    return finished.code;
  }
  std::vector<json> rows() const { return read_rows(output_); }
  std::string reason(std::size_t row) const { return rows().at(row).at("error").at("message"); }

  TemporaryFolder workplace_;
  std::string output_ = workplace_ / "output.jsonl";
};

const std::string kMark = "\xEF\xBB\xBF";

TEST_F(OddInputs, MarksAndLineEndsChangeNoAnswer) {
  const std::string first = R"({"id": 1, "prompt": "Mr. Darcy"})";
  const std::string second = R"({"id": 2, "prompt": "Her mother"})";
  ASSERT_EQ(run("plain.jsonl", first + "\n" + second + "\n"), 0);
  const std::string expected = read_bytes(output_);
  for (const std::string& text : {
           kMark + first + "\n" + second + "\n",
           first + "\r\n" + second + "\r\n",
           kMark + first + "\r\n\r\n \t\r\n" + second,
           first + "\n" + second + "\r",
       }) {
    SCOPED_TRACE(text);
    EXPECT_EQ(run("odd.jsonl", text), 0);
    EXPECT_EQ(read_bytes(output_), expected);
    // Also where the name does not tell what it is.
    EXPECT_EQ(run("odd", text), 0);
    EXPECT_EQ(read_bytes(output_), expected);
  }

  ASSERT_EQ(run("plain.txt", "Mr. Darcy\nHer mother\n"), 0);
  const std::string from_text = read_bytes(output_);
  for (const char* text : {"Mr. Darcy\r\nHer mother\r\n", "Mr. Darcy\r\n\r\nHer mother"}) {
    EXPECT_EQ(run("odd.txt", kMark + text), 0);
    EXPECT_EQ(read_bytes(output_), from_text);
  }
}

TEST_F(OddInputs, AnotherEncodingIsRefused) {
  const std::string utf16("\xFF\xFE{\0\"\0p\0", 8);
  const Finished finished = penstock({"run", kEmbeddedModel, "--input",
                                      workplace_.write("utf16.jsonl", utf16), "--output", output_});
  EXPECT_EQ(finished.code, 1) << finished;
  EXPECT_THAT(finished.errors(), ElementsAre(HasSubstr("utf16.jsonl: is UTF-16 text")));
  EXPECT_FALSE(std::filesystem::exists(output_ + ".job"));
}

TEST_F(OddInputs, NulsAreBytesInTextAndErrorsInJson) {
  const std::string nul(1, '\0');
  const std::string lines = "a" + nul + "b\n" + nul + nul + "\n{\"prompt\": \"a" + nul + "\"}\n" +
                            R"({"prompt": "a\u0000b"})";
  ASSERT_EQ(run("nuls.txt", lines), 0);
  ASSERT_EQ(rows().size(), 4U);
  const json text = rows().at(0);

  ASSERT_EQ(run("nuls.jsonl", lines), 2);
  ASSERT_EQ(rows().size(), 4U);
  EXPECT_THAT(reason(1), HasSubstr("not valid JSON"));
  EXPECT_THAT(reason(2), HasSubstr("U+0000 (NUL) must be escaped"));
  // Escaped it is the same prompt as in the text.
  EXPECT_EQ(rows().at(3).at("usage"), text.at("usage"));
  EXPECT_EQ(rows().at(3).at("text"), text.at("text"));
}

TEST_F(OddInputs, IdsThatRepeatAreTheUsersAffair) {
  ASSERT_EQ(run("same.jsonl",
                "{\"id\": 7, \"prompt\": \"Mr. Darcy\"}\n"
                "{\"id\": 7, \"prompt\": \"They walked\"}\n"
                "{\"id\": \"7\", \"prompt\": \"Mr. Darcy\"}\n"
                "{\"id\": 7, \"prompt\": \"Mr. Darcy\"}\n"),
            0);
  const std::vector<json> all = rows();
  ASSERT_EQ(all.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(all[i].at("index"), i);
  EXPECT_EQ(all[1].at("id"), 7);
  EXPECT_EQ(all[2].at("id"), "7");
  EXPECT_EQ(all[3].at("id"), 7);
  EXPECT_NE(all[1].at("text"), all[0].at("text"));
  EXPECT_EQ(all[3].at("text"), all[0].at("text"));
}

TEST_F(OddInputs, PromptsOfTenMegabytesAreErrorRows) {
  constexpr std::size_t kBytes = 10'000'000;
  std::string words;
  while (words.size() < kBytes) words += "walked ";
  const std::string letters(kBytes, 'a');  // no place where a tokenizer could cut
  const std::vector<json> records = {
      {{"id", "words"}, {"prompt", words}},
      {{"id", "letters"}, {"prompt", letters}},
      {{"id", "tokens"}, {"tokens", std::vector<int>(kBytes / 10, 50)}},
      {{"id", "talk"}, {"messages", json::array({{{"role", "user"}, {"content", words}}})}},
      {{"id", "good"}, {"prompt", "Mr. Darcy"}},
  };
  std::string text;
  for (const json& record : records) text += record.dump() + "\n";
  ASSERT_EQ(run("long.jsonl", text), 2);
  const std::vector<json> all = rows();
  ASSERT_EQ(all.size(), records.size());
  for (std::size_t i = 0; i + 1 < records.size(); ++i) {
    EXPECT_EQ(all[i].at("id"), records[i].at("id"));
    EXPECT_EQ(all[i].at("error").at("line"), i + 1);
    EXPECT_THAT(reason(i),
                testing::MatchesRegex("prompt has [0-9]+ tokens, the context holds 512"));
  }
  EXPECT_THAT(reason(2), HasSubstr("prompt has 1000000 tokens"));
  EXPECT_EQ(all.back().at("usage").at("completion_tokens"), 6);
}

}  // namespace
}  // namespace penstock::tests
