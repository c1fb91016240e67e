#include "io/records.hpp"

#include <fmt/format.h>

#include <limits>
#include <set>
#include <utility>

#include "io/error.hpp"
#include "io/json.hpp"
#include "io/utf8.hpp"

namespace penstock::io {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxLastReadBytes = 80;
constexpr std::string_view kNotInteger = "a number that is not a 64-bit integer";

// Refuses fields that are given twice, which JSON leaves open.
class RecordLook : public JsonLook {
 public:
  bool key(std::string& name) override {
    if (depth() == 1 && !names_.insert(name).second) {
      throw RecordError(io::quoted(name) + " is given twice");
    }
    return true;
  }

 private:
  std::set<std::string> names_;
};

json parse_object(std::string_view line) {
  try {
    RecordLook().over(line);
  } catch (const JsonError&) {
    throw RecordError(fmt::format("nested deeper than {}", kMaxJsonDepth));
  }
  try {
    return json::parse(line);
  } catch (const json::parse_error& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error …; last read:
    // '…'": the position is that of the line, and what was last read may be the whole record.
    std::string_view reason = error.what();
    const std::size_t position = reason.find("column ");
    if (position != std::string_view::npos) {
      const std::size_t colon = reason.find(": ", position);
      if (colon != std::string_view::npos) reason.remove_prefix(colon + 2);
    }
    const std::size_t last_read = reason.find("; last read: '");
    if (last_read != std::string_view::npos && reason.size() - last_read > kMaxLastReadBytes) {
      reason = reason.substr(0, last_read);
    }
    throw RecordError(
        fmt::format("not valid JSON at column {}: {}", error.byte, to_valid_utf8(reason)));
  } catch (const json::out_of_range&) {  // 1e999
    throw RecordError("not valid JSON: a number is out of range");
  }
}

json take_id(json& object) {
  const auto found = object.find("id");
  if (found == object.end()) return nullptr;
  if (!found->is_string() && !found->is_number_integer() && !found->is_null()) {
    throw RecordError(fmt::format("'id' must be a string or an integer, not {}",
                                  found->is_number() ? kNotInteger : type_of(*found)));
  }
  json id = std::move(*found);
  object.erase(found);
  return id;
}

std::string take_prompt(json& value) {
  if (value.is_array()) {
    throw RecordError("'prompt' must be a string, not a list; token ids go into 'tokens'");
  }
  if (!value.is_string()) {
    throw RecordError(fmt::format("'prompt' must be a string, not {}", type_of(value)));
  }
  auto& prompt = value.get_ref<std::string&>();
  if (prompt.empty()) throw RecordError("'prompt' is empty");
  return std::move(prompt);
}

// OpenAI's content parts: [{"type": "text", "text": "…"}, …]; put together by newlines, as vLLM
// does.
std::string join_parts(const json& parts, const std::string& where) {
  std::string text;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const json& part = parts[i];
    const std::string name = fmt::format("{}[{}]", where, i);
    if (!part.is_object()) {
      throw RecordError(fmt::format("'{}' must be an object, not {}", name, type_of(part)));
    }
    const auto type = part.find("type");
    if (type == part.end() || !type->is_string()) {
      throw RecordError(fmt::format("'{}.type' must be a string", name));
    }
    if (*type != "text") {
      throw RecordError(fmt::format("'{}.type' is {}; only \"text\" can be answered", name,
                                    io::quoted(type->get_ref<const std::string&>())));
    }
    const auto content = part.find("text");
    if (content == part.end() || !content->is_string()) {
      throw RecordError(fmt::format("'{}.text' must be a string", name));
    }
    if (i > 0) text += '\n';
    text += content->get_ref<const std::string&>();
  }
  return text;
}

Message to_message(json& value, std::size_t number) {
  const std::string where = fmt::format("messages[{}]", number);
  if (!value.is_object()) {
    throw RecordError(fmt::format("'{}' must be an object, not {}", where, type_of(value)));
  }
  for (const auto& [name, member] : value.items()) {
    if (name == "role" || name == "content" || member.is_null()) continue;
    throw RecordError(
        fmt::format("'{}' has a member {} that is not known; it may hold 'role' and 'content'",
                    where, io::quoted(name)));
  }
  Message message;
  const auto role = value.find("role");
  if (role == value.end()) throw RecordError(fmt::format("'{}.role' is missing", where));
  if (!role->is_string()) {
    throw RecordError(fmt::format("'{}.role' must be a string, not {}", where, type_of(*role)));
  }
  message.role = std::move(role->get_ref<std::string&>());
  if (message.role.empty()) throw RecordError(fmt::format("'{}.role' is empty", where));
  const auto content = value.find("content");
  if (content == value.end()) throw RecordError(fmt::format("'{}.content' is missing", where));
  if (content->is_array()) {
    message.content = join_parts(*content, where + ".content");
  } else if (content->is_string()) {
    message.content = std::move(content->get_ref<std::string&>());
  } else {
    throw RecordError(
        fmt::format("'{}.content' must be a string, not {}", where, type_of(*content)));
  }
  return message;
}

std::vector<Message> take_messages(json& value) {
  if (!value.is_array()) {
    throw RecordError(fmt::format("'messages' must be a list, not {}", type_of(value)));
  }
  if (value.empty()) throw RecordError("'messages' is empty");
  std::vector<Message> messages;
  messages.reserve(value.size());
  for (std::size_t i = 0; i < value.size(); ++i) messages.push_back(to_message(value[i], i));
  return messages;
}

std::vector<std::int32_t> take_tokens(const json& value) {
  if (!value.is_array()) {
    throw RecordError(fmt::format("'tokens' must be a list of integers, not {}", type_of(value)));
  }
  if (value.empty()) throw RecordError("'tokens' is empty");
  std::vector<std::int32_t> tokens;
  tokens.reserve(value.size());
  for (std::size_t i = 0; i < value.size(); ++i) {
    const json& token = value[i];
    if (!token.is_number_integer()) {
      throw RecordError(fmt::format("'tokens[{}]' must be an integer, not {}", i,
                                    token.is_number() ? kNotInteger : type_of(token)));
    }
    // Non-negative integers are stored as unsigned by the parser.
    if (!token.is_number_unsigned() ||
        token.get<std::uint64_t>() >
            static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())) {
      throw RecordError(fmt::format("'tokens[{}]' is {}, not a token id", i, token.dump()));
    }
    tokens.push_back(token.get<std::int32_t>());
  }
  return tokens;
}

RecordInput take_input(json& object) {
  std::string given;  // the fields that are there, for messages
  std::size_t count = 0;
  std::string kind;
  for (const char* name : {"prompt", "messages", "tokens"}) {
    const auto found = object.find(name);
    if (found == object.end()) continue;
    if (found->is_null()) {  // as tables that are written out as JSONL say "absent"
      object.erase(found);
      continue;
    }
    given += (count == 0 ? "'" : " and '") + std::string(name) + "'";
    kind = name;
    ++count;
  }
  if (count == 0) throw RecordError("has none of 'prompt', 'messages', 'tokens'");
  if (count > 1) throw RecordError("has " + given + "; give only one of them");

  json value = std::move(object[kind]);
  object.erase(kind);
  if (kind == "prompt") return take_prompt(value);
  if (kind == "messages") return take_messages(value);
  return take_tokens(value);
}

}  // namespace

std::string_view to_string(InputFormat format) {
  return format == InputFormat::jsonl ? "JSONL" : "text";
}

Record parse_record(std::string_view line, InputFormat format) {
  Record record;
  record.overrides = json::object();
  if (format == InputFormat::text) {
    if (line.empty()) throw RecordError("is empty");
    record.input = to_valid_utf8(line);
    return record;
  }
  json object = parse_object(line);
  if (!object.is_object()) {
    throw RecordError(fmt::format("must be a JSON object, not {}", type_of(object)));
  }
  record.id = take_id(object);
  try {
    record.input = take_input(object);
  } catch (const RecordError& error) {
    throw RecordError(error.what(), record.id);
  }
  record.overrides = std::move(object);
  return record;
}

}  // namespace penstock::io
