#include "model/text/chat_template.hpp"

#include <gtest/gtest.h>

#include "model/error.hpp"

namespace penstock::model {
namespace {

// tokenizer.chat_template of SmolLM2-135M-Instruct's GGUF.
constexpr const char* smollm2 =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
    "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}";
constexpr const char* plain =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ "
    "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\\n' }}{% endif %}";

const std::vector<ChatMessage> one_user = {{"user", "Hi {{ x }}\n"}};
const std::vector<ChatMessage> with_system = {
    {"system", " Be brief. "}, {"user", "A"}, {"assistant", ""}, {"tool", "<|im_end|>"}};

// The expected texts are Jinja's (jinja2 3, trim_blocks and lstrip_blocks on as in transformers).
TEST(ChatTemplateTest, RendersSmolLm2AsJinjaDoes) {
  const ChatTemplate chat(smollm2);
  EXPECT_EQ(chat.render(one_user),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
            "Face<|im_end|>\n<|im_start|>user\nHi {{ x }}\n<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chat.render(with_system),
            "<|im_start|>system\n Be brief. <|im_end|>\n<|im_start|>user\nA<|im_end|>\n"
            "<|im_start|>assistant\n<|im_end|>\n<|im_start|>tool\n<|im_end|><|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(chat.render({}), "<|im_start|>assistant\n");
}

TEST(ChatTemplateTest, RendersPlainChatMlAsJinjaDoes) {
  const ChatTemplate chat(plain);
  EXPECT_EQ(chat.render(one_user),
            "<|im_start|>user\nHi {{ x }}\n<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplateTest, BlanksThatJinjaIgnoresDoNotMatter) {
  std::string spread = smollm2;
  const auto replace = [&](const std::string& from, const std::string& to) {
    const std::size_t at = spread.find(from);
    ASSERT_NE(at, std::string::npos);
    spread.replace(at, from.size(), to);
  };
  replace("{% for message in messages %}", "{%for  message in\nmessages%}\n  ");
  replace("{% endfor %}", "{% endfor %}\n");
  replace("{{'<|im_start|>' + message", "{{ \"<|im_start|>\" + message");
  EXPECT_EQ(ChatTemplate(spread + "\n").render(one_user), ChatTemplate(smollm2).render(one_user));
}

TEST(ChatTemplateTest, TextThatJinjaPrintsMatters) {
  std::string changed = smollm2;
  changed.insert(changed.find("{% endfor %}"), "\n");  // behind a variable: printed
  EXPECT_THROW(ChatTemplate(changed).render(one_user), ModelError);
  changed = smollm2;
  changed.replace(changed.find("['role'] + '\n'"), 14, "['role'] + ' '");
  EXPECT_THROW(ChatTemplate(changed).render(one_user), ModelError);
}

TEST(ChatTemplateTest, UnknownAndAbsentTemplatesAreErrorsThatSayWhatToDo) {
  for (const char* text : {"", "{{ bos_token }}{% for m in messages %}{% endfor %}", "{%", "{{'",
                           "{% for message in messages %}"}) {
    try {
      ChatTemplate(text).render(one_user);
      ADD_FAILURE() << text;
    } catch (const ModelError& error) {
      EXPECT_NE(std::string(error.what()).find("prompts instead of messages"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace penstock::model
