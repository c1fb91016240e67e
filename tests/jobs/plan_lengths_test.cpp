#include "jobs/plan_lengths.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "byte_tokenizer.hpp"
#include "jobs/launch.hpp"
#include "tests/support/temporary_folder.hpp"

namespace penstock::jobs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

class PlanLengthsTest : public testing::Test {
 protected:
  PlanLengthsTest() : tokenizer_(byte_tokenizer()), chat_template_("") {
    context_.tokenizer = &tokenizer_;
    context_.chat_template = &chat_template_;
    context_.vocab_size = 259;
    context_.context_limit = input_.context_limit = 100;
    context_.defaults.max_tokens = 60;
  }
  void read(const std::string& content, std::uint32_t expected, std::uint64_t most = UINT64_MAX) {
    DatasetTokensOptions options;
    options.path = folder_.write("in.jsonl", content);
    options.most = most;
    read_lengths(options, RequestBuilder(context_), expected, input_, source_);
  }
  // Prompt, answer, and what the answer may have.
  std::vector<std::vector<std::uint32_t>> lengths() const {
    std::vector<std::vector<std::uint32_t>> all;
    for (const ReplayRecord& r : input_.lengths) {
      all.push_back({r.prompt_tokens, r.answer_tokens, r.max_tokens});
    }
    return all;
  }

  tests::TemporaryFolder folder_;
  model::Tokenizer tokenizer_;
  model::ChatTemplate chat_template_;
  RequestContext context_;
  PlanInput input_;
  PlanSource source_;
};

constexpr const char* kTwo = "{\"prompt\": \"abcd\"}\n{\"tokens\": [1, 2], \"max_tokens\": 7}\n";

TEST_F(PlanLengthsTest, AnswersAreAsLongAsTheyMayBe) {
  read(kTwo, 0);
  EXPECT_THAT(lengths(), ElementsAre(ElementsAre(5, 60, 60), ElementsAre(2, 7, 7)));
  EXPECT_EQ(input_.records, 2u);
  EXPECT_TRUE(source_.answers_are_longest);
  EXPECT_EQ(source_.answers.longest, 60u);
  EXPECT_EQ(source_.prompts.sum, 7u);
  EXPECT_EQ(input_.lengths[0].line_bytes, 18u);
  EXPECT_NE(input_.lengths[0].prefix_hash, input_.lengths[1].prefix_hash);
}

TEST_F(PlanLengthsTest, OrAsExpectedWhereTheyMayBeSoLong) {
  read(kTwo, 20);
  EXPECT_THAT(lengths(), ElementsAre(ElementsAre(5, 20, 60), ElementsAre(2, 7, 7)));
  EXPECT_FALSE(source_.answers_are_longest);
}

// Of those read a half can be answered, so of all 8.
TEST_F(PlanLengthsTest, ASampleTellsHowManyCanBeAnswered) {
  std::string content;
  for (int i = 0; i < 8; ++i)
    content += "{\"prompt\": \"abcd\"}\n{\"prompt\": \"abcd\", \"top_p\": 7}\n";
  read(content, 0, 15);
  EXPECT_EQ(source_.records_read, 15u);
  EXPECT_EQ(input_.records, 16 * input_.lengths.size() / 15);
  EXPECT_EQ(source_.records_failed + input_.lengths.size(), 15u);
}

TEST_F(PlanLengthsTest, NothingToAnswerIsToldOfTheFile) {
  EXPECT_THAT(
      [&] { read("nonsense\n", 0); },
      ThrowsMessage<UsageError>(HasSubstr("in.jsonl: none of the 1 records read can be answered")));
}

TEST_F(PlanLengthsTest, AlikeAsTheUserSays) {
  take_lengths({10, 20, 0, 1'000'000'000'000}, input_, source_);
  EXPECT_THAT(lengths(), ElementsAre(ElementsAre(10, 20, 20)));
  EXPECT_EQ(input_.records, 1'000'000'000'000u);
  take_lengths({10, 20, 50, 3}, input_, source_);
  EXPECT_THAT(lengths(), ElementsAre(ElementsAre(10, 20, 50)));
  EXPECT_THAT(
      [&] {
        take_lengths({10, 91, 0, 1}, input_, source_);
      },
      ThrowsMessage<UsageError>(HasSubstr("exceed the context of 100")));
}

}  // namespace
}  // namespace penstock::jobs
