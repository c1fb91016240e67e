#include "io/json.hpp"

#include <fmt/format.h>

#include "io/utf8.hpp"

namespace penstock::io {

bool JsonLook::enter() {
  if (++depth_ > kMaxJsonDepth) {
    throw JsonError(fmt::format("JSON that is nested deeper than {}", kMaxJsonDepth));
  }
  return true;
}

nlohmann::json parse_json(std::string_view text) {
  using nlohmann::json;
  JsonLook().over(text);
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    throw JsonError(fmt::format("broken JSON at byte {} of it: {}", error.byte, reason_of(error)));
  } catch (const json::exception& error) {  // 1e999
    throw JsonError("broken JSON: " + reason_of(error));
  }
}

std::string_view type_of(const nlohmann::json& value) {
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  if (value.is_string()) return "a string";
  if (value.is_boolean()) return "a boolean";
  if (value.is_null()) return "null";
  return value.is_number_integer() ? "an integer" : "a fraction";
}

std::string in_short(const nlohmann::json& value) {
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

// "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error …; last read: …"
std::string reason_of(const nlohmann::json::exception& error) {
  std::string_view words = error.what();
  if (const auto tag = words.find("] "); tag != words.npos) words.remove_prefix(tag + 2);
  if (words.starts_with("parse error at")) {
    if (const auto place = words.find(": "); place != words.npos) words.remove_prefix(place + 2);
  }
  return to_valid_utf8(words.substr(0, words.find("; last read")).substr(0, 200));
}

}  // namespace penstock::io
