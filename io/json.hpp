#pragma once

#include <cstddef>
#include <cstdint>
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

// A look over a text before it is parsed: throws JsonError where it is nested too deep and stops at
// what is broken, which the parser then names. The parser's own callback would do for that, but
// each object's end takes it through all elements of the list around it.
class JsonLook : public nlohmann::json_sax<nlohmann::json> {
 public:
  void over(std::string_view text) { nlohmann::json::sax_parse(text, this); }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(std::int64_t) override { return true; }
  bool number_unsigned(std::uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(nlohmann::json::binary_t&) override { return true; }
  bool key(std::string&) override { return true; }
  bool start_object(std::size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_array() override { return leave(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 protected:
  int depth() const { return depth_; }  // how many lists and objects are open

 private:
  bool enter();
  bool leave() {
    --depth_;
    return true;
  }
  int depth_ = 0;
};

// Parses the JSON of a file. Throws JsonError.
nlohmann::json parse_json(std::string_view text);

// The type of a value in a message: "a list", "an object", "a string", "a boolean", "null", "an
// integer", "a fraction".
std::string_view type_of(const nlohmann::json& value);

// A value in a message: short and without control characters, whatever it is.
std::string in_short(const nlohmann::json& value);

// What a parse error of the library says, without its tag and without what was last read.
std::string reason_of(const nlohmann::json::exception& error);

}  // namespace penstock::io
