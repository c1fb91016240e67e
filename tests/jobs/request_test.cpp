#include "jobs/request.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "byte_tokenizer.hpp"

namespace penstock::jobs {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class RequestBuilderTest : public ::testing::Test {
 protected:
  RequestBuilderTest() : tokenizer_(byte_tokenizer()), chat_template_("{{ no template }}") {
    context_.tokenizer = &tokenizer_;
    context_.chat_template = &chat_template_;
    context_.vocab_size = 300;
    context_.eos_token_ids = {258};
    context_.context_limit = 10;
  }
  Request build(std::string_view line) const {
    return RequestBuilder(context_).build(io::parse_record(line, io::InputFormat::jsonl), 4, 17);
  }
  std::string error_of(std::string_view line) const {
    try {
      build(line);
    } catch (const io::RecordError& error) {
      return error.id.dump() + ": " + error.what();
    }
    return "accepted";
  }

  model::Tokenizer tokenizer_;
  model::ChatTemplate chat_template_;
  RequestContext context_;
};

TEST_F(RequestBuilderTest, PromptIsEncodedWithSpecialTokens) {
  const Request request = build(R"({"id": "x", "prompt": "Hi"})");
  EXPECT_EQ(request.index, 4u);
  EXPECT_EQ(request.line, 17u);
  EXPECT_EQ(request.id, "x");
  EXPECT_THAT(request.prompt, ElementsAre(256, 'H', 'i'));
}

TEST_F(RequestBuilderTest, TokensAreTakenAsTheyAre) {
  EXPECT_THAT(build(R"({"tokens": [299, 0]})").prompt, ElementsAre(299, 0));
  EXPECT_EQ(error_of(R"({"id": 3, "tokens": [5, 300]})"),
            "3: token 1 of the prompt is 300, the model knows 0 to 299");
}

TEST_F(RequestBuilderTest, ATokenizerLargerThanTheModelIsSeen) {
  context_.vocab_size = 100;
  EXPECT_EQ(error_of(R"({"prompt": "a"})"),
            "null: token 0 of the prompt is 256, the model knows 0 to 99");
}

TEST_F(RequestBuilderTest, UnknownTemplateIsAnErrorOfMessagesOnly) {
  EXPECT_THAT(error_of(R"({"id": 1, "messages": [{"role": "user", "content": "a"}]})"),
              HasSubstr("1: "));
  EXPECT_EQ(error_of(R"({"prompt": "a"})"), "accepted");
}

TEST_F(RequestBuilderTest, MessagesAreRenderedAndEncodedWithoutSpecialTokens) {
  // ChatML, as many models carry it.
  chat_template_ = model::ChatTemplate(
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
      "+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
      "'<|im_start|>assistant\n' "
      "}}{% endif %}");
  context_.context_limit = 100;
  const Request request = build(R"({"messages": [{"role": "user", "content": "a"}]})");
  ASSERT_GT(request.prompt.size(), 2u);
  EXPECT_EQ(request.prompt[0], 257);
  EXPECT_THAT(error_of(R"({"messages": [{"role": "wizard", "content": "a"}]})"),
              ::testing::AnyOf("accepted", HasSubstr("wizard")));
}

TEST_F(RequestBuilderTest, PromptLongerThanTheContext) {
  EXPECT_EQ(error_of(R"({"id": 1, "prompt": "1234567890"})"),
            "1: prompt has 11 tokens, the context holds 10");
  EXPECT_EQ(error_of(R"({"prompt": "123456789"})"),
            "null: prompt has 10 tokens, the context holds 10: no room for an answer");
  EXPECT_EQ(error_of(R"({"prompt": "12345678"})"), "accepted");
}

TEST_F(RequestBuilderTest, MaxTokensAreClippedToTheContext) {
  EXPECT_EQ(build(R"({"prompt": "12"})").params.max_tokens, 7u);
  EXPECT_EQ(build(R"({"prompt": "12", "max_tokens": 7})").params.max_tokens, 7u);
  EXPECT_EQ(build(R"({"prompt": "12", "max_tokens": 6})").params.max_tokens, 6u);
}

TEST_F(RequestBuilderTest, OverridesWinOverDefaults) {
  context_.defaults.sampling.temperature = 0.5f;
  context_.defaults.sampling.seed = 3;
  const Request request = build(R"({"prompt": "a", "temperature": 0, "metadata": {"k": 1}})");
  EXPECT_EQ(request.params.sampling.temperature, 0.0f);
  EXPECT_EQ(request.params.sampling.seed, 3u);
  EXPECT_EQ(error_of(R"({"id": 5, "prompt": "a", "top_p": 2})"),
            "5: 'top_p' must be above 0 and at most 1, not 2");
  EXPECT_THAT(error_of(R"({"id": 5, "prompt": "a", "promt": "b"})"),
              HasSubstr("5: 'promt' is not a known field"));
}

TEST_F(RequestBuilderTest, StopIdsIncludeEos) {
  EXPECT_THAT(build(R"({"prompt": "a"})").params.stop_token_ids, ElementsAre(258));
  EXPECT_THAT(build(R"({"prompt": "a", "stop_token_ids": [260, 9, 258]})").params.stop_token_ids,
              ElementsAre(9, 258, 260));
  EXPECT_THAT(build(R"({"prompt": "a", "ignore_eos": true})").params.stop_token_ids, IsEmpty());
  EXPECT_THAT(
      build(R"({"prompt": "a", "ignore_eos": true, "stop_token_ids": [9]})").params.stop_token_ids,
      ElementsAre(9));
}

}  // namespace
}  // namespace penstock::jobs
