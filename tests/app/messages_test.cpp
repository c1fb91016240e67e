// Conversations: rendered by the checkpoint's template where it is known, refused where it is not.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/program.hpp"

namespace penstock::tests {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::vector<json> answers(const TemporaryFolder& workplace, const std::string& model,
                          const std::string& records, int code, const Arguments& options = {}) {
  const std::string output = workplace / "out";
  const Finished run =
      penstock(Arguments{"run", model, "--input", workplace.write("in.jsonl", records), "--output",
                         output, "--fresh", "--kv-memory", "16M"} +
               options);
  EXPECT_EQ(run.code, code) << run;
  return run.code == 0 || run.code == 2 ? read_rows(output) : std::vector<json>(9);
}

TEST(Messages, AreChatMlForTheEmbeddedModel) {
  const TemporaryFolder workplace;
  const json messages = {
      {"messages", json::array({{{"role", "system"}, {"content", "Be kind."}},
                                {{"role", "user"}, {"content", "Who is Mr. Darcy?"}}})},
      {"max_tokens", 20}};
  // The ids that Python's tokenizers 0.23.3 gives with add_special_tokens=False for
  //   <|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWho is Mr. Darcy?<|im_end|>\n
  //   <|im_start|>assistant\n
  const json tokens = {
      {"tokens", {2,  86,  92,  316, 760, 202, 37,  72, 802, 17,  3, 202, 2,  475, 271, 202, 58, 75,
                  82, 368, 365, 17,  574, 294, 667, 34, 3,   202, 2, 292, 86, 649, 435, 202}},
      {"max_tokens", 20}};
  const std::vector<json> rows =
      answers(workplace, kEmbeddedModel, messages.dump() + "\n" + tokens.dump(), 0);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].at("usage"), rows[1].at("usage"));
  EXPECT_EQ(rows[0].at("usage").at("prompt_tokens"), 34);
  EXPECT_EQ(rows[0].at("text"), rows[1].at("text"));
  EXPECT_GT(rows[0].at("text").get<std::string>().size(), 0U);
  EXPECT_THAT(rows[0].at("text").get<std::string>(), testing::Not(HasSubstr("<|im_")));
}

TEST(Messages, AreErrorRowsWhereTheTemplateIsUnknown) {
  const TemporaryFolder workplace;
  // A Hugging Face folder's tokenizer with a template that nobody knows.
  const std::string records = R"({"id": 1, "messages": [{"role": "user", "content": "Who?"}]})"
                              "\n"
                              R"({"id": 2, "prompt": "Who?", "max_tokens": 3})"
                              "\n";
  // A model that has no template at all: the byte-level tokenizer of synth.
  const std::vector<json> without = answers(workplace, synthesize(workplace, 2), records, 2);
  ASSERT_EQ(without.size(), 2U);
  EXPECT_EQ(without[0].at("finish_reason"), "error");
  EXPECT_EQ(without[0].at("id"), 1);
  EXPECT_THAT(without[0].at("error").at("message").get<std::string>(), HasSubstr("template"));
  EXPECT_NE(without[1].at("finish_reason"), "error");

  const std::string tokenizer = R"({"version":"1.0","added_tokens":[],"normalizer":null,
    "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},
    "post_processor":null,"decoder":{"type":"ByteLevel"},
    "model":{"type":"BPE","vocab":{"W":0,"h":1,"o":2,"?":3},"merges":[]}})";
  workplace.write("hf/tokenizer.json", tokenizer);
  workplace.write(
      "hf/tokenizer_config.json",
      json{{"chat_template", "{% for m in messages %}[{{ m.content }}]{% endfor %}"}}.dump());
  const std::string config = workplace.write("config.json", tiny_llama_config(2).dump());
  const std::string model = workplace / "unknown.h5";
  const Finished made = penstock({"synth", config, model, "--tokenizer", workplace / "hf"});
  ASSERT_EQ(made.code, 0) << made;
  const std::vector<json> unknown = answers(workplace, model, records, 2);
  ASSERT_EQ(unknown.size(), 2U);
  EXPECT_EQ(unknown[0].at("finish_reason"), "error");
  EXPECT_THAT(unknown[0].at("error").at("message").get<std::string>(), HasSubstr("template"));
  EXPECT_NE(unknown[1].at("finish_reason"), "error");
  EXPECT_EQ(unknown[1].at("usage").at("prompt_tokens"), 4);
}

}  // namespace
}  // namespace penstock::tests
