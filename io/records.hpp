#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace penstock::io {

enum class InputFormat { jsonl, text };
std::string_view to_string(InputFormat format);  // "JSONL", "text"

struct Message {
  std::string role;
  std::string content;
};

// What a record asks to be answered: a prompt, a conversation, or token ids.
using RecordInput = std::variant<std::string, std::vector<Message>, std::vector<std::int32_t>>;

struct Record {
  nlohmann::json id;  // as the input gave it; null if it gave none
  RecordInput input;
  nlohmann::json overrides;  // object: every other field of the line ("temperature", …)
};

// A record that cannot be used: what() says why, in words for the user. `id` is what could be
// recovered of it.
class RecordError : public std::runtime_error {
 public:
  RecordError(const std::string& reason, nlohmann::json record_id = nullptr)
      : std::runtime_error(reason), id(std::move(record_id)) {}
  nlohmann::json id;
};

// Parses one line (without its newline). Throws RecordError: bad JSON (with the column), not an
// object, none or several of prompt/messages/tokens, wrong types, empty prompt. A text line is a
// prompt; invalid UTF-8 in it is replaced by U+FFFD, in JSON it is an error.
Record parse_record(std::string_view line, InputFormat format);

}  // namespace penstock::io
