#include "jobs/generate_workload.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/input_index.hpp"
#include "tests/jobs/byte_tokenizer.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

// A dataset of prompts, whose answers the test gives token by token.
class GenerateWorkloadTest : public testing::Test {
 protected:
  ~GenerateWorkloadTest() override { std::filesystem::remove_all(folder_); }

  void begin(const std::string& lines, const json& decoder = nullptr) {
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ + "/in") << lines;
    io::build_index(folder_ + "/in", folder_ + "/index");
    input_.emplace(folder_ + "/in", folder_ + "/index");
    tokenizer_.emplace(byte_tokenizer(decoder));
    RequestContext context;
    context.tokenizer = &*tokenizer_;
    context.chat_template = &chat_template_;
    context.vocab_size = 259;
    context.context_limit = 1000;
    context.eos_token_ids = {256};
    builder_.emplace(context);
    dataset_.emplace(*input_, io::InputFormat::jsonl, *builder_);
    journal_.emplace(folder_ + "/journal");
    workload_.emplace(*dataset_, *tokenizer_, *journal_,
                      [](const GenerateCounts&, const std::vector<double>&) {});
  }

  bool accept_all(std::uint64_t record, const std::string& bytes) {
    bool complete = false;
    for (const char c : bytes) complete = workload_->accept(record, static_cast<unsigned char>(c));
    return complete;
  }

  std::vector<json> rows() {
    journal_->flush();
    io::JournalReader reader(folder_ + "/journal");
    std::vector<json> rows;
    std::uint64_t index = 0;
    for (std::string row; reader.next(index, row);) rows.push_back(json::parse(row));
    return rows;
  }

  std::string folder_ =
      testing::TempDir() + "/penstock_generate_workload_" + std::to_string(::getpid());
  std::optional<model::Tokenizer> tokenizer_;
  model::ChatTemplate chat_template_{""};
  std::optional<io::IndexedInput> input_;
  std::optional<RequestBuilder> builder_;
  std::optional<Dataset> dataset_;
  std::optional<io::JournalWriter> journal_;
  std::optional<GenerateWorkload> workload_;
};

TEST_F(GenerateWorkloadTest, AnswersEndByStopIdStopStringOrLength) {
  begin(
      "{\"prompt\":\"aaa\"}\n{\"prompt\":\"bb\",\"stop\":\"nd\"}\n"
      "{\"prompt\":\"c\",\"max_tokens\":2}\n");
  std::map<std::uint64_t, std::size_t> prompts;
  while (const std::optional<Work> work = workload_->next()) {
    prompts[work->record] = work->prompt.size();
  }
  EXPECT_THAT(prompts, ElementsAre(Pair(0, 4U), Pair(1, 3U), Pair(2, 2U)));  // <s> in front
  EXPECT_FALSE(accept_all(0, "one"));
  EXPECT_TRUE(workload_->accept(0, 256));
  EXPECT_TRUE(accept_all(1, "the end"));
  EXPECT_TRUE(accept_all(2, "xy"));
  const std::vector<json> all = rows();
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[0].at("text"), "one");
  EXPECT_EQ(all[0].at("finish_reason"), "stop");
  EXPECT_EQ(all[0].at("usage"), json({{"prompt_tokens", 4}, {"completion_tokens", 4}}));
  EXPECT_EQ(all[1].at("text"), "the e");
  EXPECT_EQ(all[1].at("finish_reason"), "stop");
  EXPECT_EQ(all[2].at("text"), "xy");
  EXPECT_EQ(all[2].at("finish_reason"), "length");
  EXPECT_EQ(workload_->counts().answered, 3U);
  EXPECT_EQ(workload_->counts().tokens_in, 9U);
  EXPECT_EQ(workload_->counts().tokens_out, 4U + 7U + 2U);
}

// One bad record never stops a job, not even by its answer.
TEST_F(GenerateWorkloadTest, AnswerThatTheTokenizerCannotDecodeIsAnErrorRow) {
  begin(
      "{\"id\":\"x\",\"prompt\":\"aaa\"}\n{\"prompt\":\"bb\",\"max_tokens\":1}\n",
      {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(100000, 'b')}});
  workload_->next();
  workload_->next();
  EXPECT_TRUE(workload_->accept(0, 'a'));  // complete: it failed
  EXPECT_TRUE(workload_->accept(1, 'c'));
  const std::vector<json> all = rows();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].at("id"), "x");
  EXPECT_EQ(all[0].at("finish_reason"), "error");
  EXPECT_THAT(all[0].at("error").at("message").get<std::string>(), HasSubstr("decoder"));
  EXPECT_EQ(all[1].at("text"), "c");
  EXPECT_EQ(workload_->counts().failed, 1U);
}

}  // namespace
}  // namespace penstock::jobs
