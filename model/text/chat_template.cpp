#include "model/text/chat_template.hpp"

#include <algorithm>
#include <array>

#include "model/error.hpp"

namespace penstock::model {
namespace {

// The template with nothing that Jinja ignores, as chat templates are run (trim_blocks and
// lstrip_blocks on, a last newline dropped): blanks inside of tags, a newline behind a block, the
// indentation before one. A newline and its escape in a literal become the same.
class TemplateText {
 public:
  explicit TemplateText(std::string_view text) : text_(text) {
    if (text_.ends_with('\n')) text_.remove_suffix(1);
  }

  std::string run() {
    while (at_ < text_.size()) {
      const std::string_view rest = text_.substr(at_);
      if (rest.starts_with("{%") || rest.starts_with("{{")) {
        tag(rest[1] == '%');
      } else {
        result_ += text_[at_++];
      }
    }
    return std::move(result_);
  }

 private:
  static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

  void tag(bool is_block) {
    if (is_block) drop_indentation();
    result_ += text_.substr(at_, 2);
    at_ += 2;
    const std::string_view close = is_block ? "%}" : "}}";
    bool blank_before = false;
    bool is_first = true;
    while (at_ < text_.size() && !text_.substr(at_).starts_with(close)) {
      const char c = text_[at_];
      if (is_blank(c)) {
        blank_before = true;
        ++at_;
        continue;
      }
      if (blank_before && !is_first) result_ += ' ';
      blank_before = false;
      is_first = false;
      if (c == '\'' || c == '"') {
        literal(c);
      } else {
        result_ += c;
        ++at_;
      }
    }
    if (at_ >= text_.size()) return;
    result_ += close;
    at_ += 2;
    if (is_block && text_.substr(at_).starts_with('\n')) ++at_;
  }

  // The blanks between the beginning of the tag's line and the tag.
  void drop_indentation() {
    std::size_t begin = at_;
    while (begin > 0 && (text_[begin - 1] == ' ' || text_[begin - 1] == '\t')) --begin;
    if (begin == 0 || text_[begin - 1] == '\n') result_.resize(result_.size() - (at_ - begin));
  }

  void literal(char quote) {
    result_ += '\'';
    for (++at_; at_ < text_.size() && text_[at_] != quote; ++at_) {
      if (text_.substr(at_).starts_with("\\n")) {
        result_ += '\n';
        ++at_;
      } else {
        result_ += text_[at_];
      }
    }
    result_ += '\'';
    ++at_;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string result_;
};

// Normalized. Between the first two stands the default system message.
constexpr std::string_view loop = "{%for message in messages%}";
constexpr std::string_view system_begin =
    "{%if loop.first and messages[0]['role'] != 'system'%}{{'<|im_start|>system\n";
constexpr std::string_view system_end = "<|im_end|>\n'}}{%endif%}";
constexpr auto bodies = std::to_array<std::string_view>({
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}",
    "{{'<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n'}}",
});
constexpr std::string_view end =
    "{%endfor%}{%if add_generation_prompt%}{{'<|im_start|>assistant\n'}}{%endif%}";
// As some libraries write it; rendering always asks for the generation prompt.
constexpr std::string_view guard =
    "{%if not add_generation_prompt is defined%}{%set add_generation_prompt = false%}{%endif%}";

bool remove_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string template_text) {
  if (template_text.empty()) return;
  kind_ = Kind::unknown;
  const std::string normalized = TemplateText(template_text).run();
  std::string_view text = normalized;
  remove_prefix(text, guard);
  if (!remove_prefix(text, loop)) return;
  std::optional<std::string> system;
  if (remove_prefix(text, system_begin)) {
    const std::size_t size = text.find(system_end);
    if (size == text.npos || text.substr(0, size).find_first_of("\\'") != text.npos) return;
    system = text.substr(0, size);
    text.remove_prefix(size + system_end.size());
  }
  const bool has_body = std::any_of(bodies.begin(), bodies.end(), [&](std::string_view body) {
    return remove_prefix(text, body);
  });
  if (!has_body || text != end) return;
  kind_ = Kind::chatml;
  default_system_ = std::move(system);
}

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages) const {
  if (kind_ == Kind::none) {
    throw ModelError("the model has no chat template: give prompts instead of messages");
  }
  if (kind_ == Kind::unknown) {
    throw ModelError(
        "the model's chat template is not one that is known (ChatML, as SmolLM2 and Qwen2 have "
        "it): give prompts instead of messages");
  }
  std::string prompt;
  const auto add = [&](std::string_view role, std::string_view content) {
    prompt += "<|im_start|>";
    prompt += role;
    prompt += '\n';
    prompt += content;
    prompt += "<|im_end|>\n";
  };
  if (default_system_ && !messages.empty() && messages.front().role != "system") {
    add("system", *default_system_);
  }
  for (const ChatMessage& message : messages) add(message.role, message.content);
  prompt += "<|im_start|>assistant\n";
  return prompt;
}

}  // namespace penstock::model
