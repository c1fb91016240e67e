#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

namespace penstock::io {

// Text that cannot be taken as JSON: broken, or nested too deep. what() is for messages, without
// the library's tags and without the text itself, which may be of any length.
class JsonError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Deeper than any real file. nlohmann's parser takes any depth, but its dump() and its copies
// recurse once for each level, so that a deep value would end the stack later.
inline constexpr int kMaxJsonDepth = 64;

// Parses the JSON of a file. Throws JsonError.
nlohmann::json parse_json(std::string_view text);

// A value in a message: short and without control characters, whatever it is.
std::string in_short(const nlohmann::json& value);

// What a parse error of the library says, without its tag and without what was last read.
std::string reason_of(const nlohmann::json::exception& error);

}  // namespace penstock::io
