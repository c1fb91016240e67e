#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace penstock::model {

struct ChatMessage {
  std::string role;
  std::string content;
};

// Turns a conversation into a prompt. Known templates are recognized by their text; templates in
// general are not interpreted yet.
class ChatTemplate {
 public:
  // Never throws: an unknown template is remembered and refused by render().
  explicit ChatTemplate(std::string template_text);

  // With the generation prompt appended. Throws ModelError for an unknown or absent template,
  // and for a role the template does not know.
  std::string render(const std::vector<ChatMessage>& messages) const;

 private:
  enum class Kind { none, unknown, chatml, chatml_smollm2 } kind_ = Kind::none;
};

}  // namespace penstock::model
