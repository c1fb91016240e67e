#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::model {

struct ChatMessage {
  std::string role;
  std::string content;
};

// Turns a conversation into a prompt. Known templates are recognized by their text; templates in
// general are not interpreted yet. Known is ChatML: plain, and with a system message that is put
// first where the conversation has none (SmolLM2-Instruct, Qwen2-Instruct). Like those templates
// it takes any role.
class ChatTemplate {
 public:
  // Never throws for its text: an unknown template is remembered and refused by render().
  explicit ChatTemplate(std::string template_text);

  // With the generation prompt appended; to be encoded without special tokens, which are in it as
  // text. Throws ModelError for an unknown or absent template.
  std::string render(const std::vector<ChatMessage>& messages) const;

 private:
  enum class Kind { none, unknown, chatml } kind_ = Kind::none;
  std::optional<std::string> default_system_;
};

}  // namespace penstock::model
