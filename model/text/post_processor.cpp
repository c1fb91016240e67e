#include "model/text/post_processor.hpp"

#include <fmt/format.h>

#include "io/error.hpp"
#include "io/json.hpp"
#include "model/error.hpp"
#include "model/text/json_fields.hpp"

namespace penstock::model {
namespace {

constexpr std::string_view template_part = "post_processor TemplateProcessing";

// Each mention of a token adds all its ids, so that a small file can ask for any number.
constexpr std::size_t most_special_ids = 1024;

void append_special(const nlohmann::json& piece, const nlohmann::json& specials,
                    std::vector<std::int32_t>& ids) {
  const std::string name = text_field(piece, "id", template_part);
  const nlohmann::json& special = field(specials, name, template_part);
  for (const nlohmann::json& value : part_list(special, "ids", template_part)) {
    const std::optional<std::int32_t> id = token_id(value);
    if (!id) {
      throw ModelError(
          fmt::format("tokenizer: {} gives {} the id {}, not an integer from 0 to 2147483647",
                      template_part, io::quoted(name), io::in_short(value)));
    }
    if (ids.size() == most_special_ids) {
      throw ModelError(fmt::format("tokenizer: {} adds more than {} special tokens", template_part,
                                   most_special_ids));
    }
    ids.push_back(*id);
  }
}

}  // namespace

PostProcessor::PostProcessor(const nlohmann::json& json) {
  if (!json.is_null()) add(json, 0);
}

void PostProcessor::add(const nlohmann::json& json, int depth) {
  const std::string type = part_type(json, depth, "the post_processor");
  const std::string where = fmt::format("post_processor {}", type);
  if (type == "Sequence") {
    for (const auto& part : part_list(json, "processors", where)) add(part, depth + 1);
  } else if (type == "TemplateProcessing") {
    if (has_template_) throw ModelError(fmt::format("tokenizer: more than one {}", where));
    has_template_ = true;
    add_template(json);
  } else if (type != "ByteLevel") {  // which only trims offsets
    throw ModelError(
        fmt::format("tokenizer: the post_processor {} is not supported (known: "
                    "Sequence, TemplateProcessing, ByteLevel)",
                    io::quoted(type)));
  }
}

void PostProcessor::add_template(const nlohmann::json& json) {
  const nlohmann::json& specials = field(json, "special_tokens", template_part);
  bool text_seen = false;
  for (const nlohmann::json& piece : part_list(json, "single", template_part)) {
    if (piece.is_object() && piece.contains("SpecialToken")) {
      append_special(piece["SpecialToken"], specials, text_seen ? after_ : before_);
    } else {
      const nlohmann::json& sequence = field(piece, "Sequence", template_part);
      if (text_seen || text_field(sequence, "id", template_part) != "A") {
        throw ModelError(
            fmt::format("tokenizer: 'single' of {} has more texts than one", template_part));
      }
      text_seen = true;
    }
  }
  if (!text_seen) {
    throw ModelError(fmt::format("tokenizer: 'single' of {} has no text", template_part));
  }
}

}  // namespace penstock::model
