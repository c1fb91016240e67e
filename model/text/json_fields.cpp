#include "model/text/json_fields.hpp"

#include <fmt/format.h>

#include <limits>

#include "io/error.hpp"
#include "model/error.hpp"

namespace penstock::model {

const nlohmann::json& field(const nlohmann::json& json, std::string_view name,
                            std::string_view where) {
  const auto found = json.is_object() ? json.find(std::string(name)) : json.end();
  if (!json.is_object() || found == json.end()) {
    throw ModelError(fmt::format("tokenizer: {} has no {}", where, io::quoted(name)));
  }
  return *found;
}

std::string text_field(const nlohmann::json& json, std::string_view name, std::string_view where) {
  const nlohmann::json& value = field(json, name, where);
  if (!value.is_string()) {
    throw ModelError(fmt::format("tokenizer: '{}' of {} is not a string", name, where));
  }
  return value.get<std::string>();
}

bool flag_field(const nlohmann::json& json, std::string_view name, std::string_view where) {
  const nlohmann::json& value = field(json, name, where);
  if (!value.is_boolean()) {
    throw ModelError(fmt::format("tokenizer: '{}' of {} is not true or false", name, where));
  }
  return value.get<bool>();
}

bool flag_field_or(const nlohmann::json& json, std::string_view name, bool otherwise,
                   std::string_view where) {
  return json.contains(std::string(name)) ? flag_field(json, name, where) : otherwise;
}

std::optional<std::int32_t> token_id(const nlohmann::json& value) {
  constexpr auto top = std::numeric_limits<std::int32_t>::max();
  if (value.is_number_unsigned() && value.get<std::uint64_t>() <= std::uint64_t{top}) {
    return value.get<std::int32_t>();
  }
  if (!value.is_number_unsigned() && value.is_number_integer() && value.get<std::int64_t>() >= 0 &&
      value.get<std::int64_t>() <= top) {
    return value.get<std::int32_t>();
  }
  return std::nullopt;
}

Regex pattern_field(const nlohmann::json& json, std::string_view where) {
  const nlohmann::json& pattern = field(json, "pattern", where);
  const std::string name = fmt::format("'pattern' of {}", where);
  if (pattern.is_object() && pattern.contains("String")) {
    return Regex::literal(text_field(pattern, "String", name));
  }
  return Regex(text_field(pattern, "Regex", name));
}

std::string part_type(const nlohmann::json& json, int depth, std::string_view where) {
  if (depth > max_part_depth) {
    throw ModelError(fmt::format("tokenizer: {} is a Sequence in a Sequence, more than {} deep",
                                 where, max_part_depth));
  }
  return text_field(json, "type", where);
}

const nlohmann::json& part_list(const nlohmann::json& json, std::string_view name,
                                std::string_view where) {
  const nlohmann::json& list = field(json, name, where);
  if (!list.is_array()) {
    throw ModelError(fmt::format("tokenizer: '{}' of {} is not a list", name, where));
  }
  return list;
}

}  // namespace penstock::model
