#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <variant>

namespace penstock::io {

// Walks a JSON object of objects, {"SECTION": {"KEY": VALUE, …}, …}, without building a tree, so
// that memory does not depend on what a file's author nested in it. Values are strings, numbers or
// arrays of them; anything else is reported as Other, and what lies inside it is skipped.
class SectionedJson : public nlohmann::json_sax<nlohmann::json> {
 public:
  struct Other {};
  using Value = std::variant<Other, std::uint64_t, std::string>;

  // `file` is for the messages of FileError.
  explicit SectionedJson(std::string file) : file_(std::move(file)) {}

  // Parses `text` and calls the functions below. Throws FileError.
  void walk(std::string_view text);

 protected:
  virtual void begin_section(const std::string& section) = 0;
  virtual void end_section() = 0;
  virtual void begin_value(const std::string& key) = 0;
  // A scalar, or an element of an array.
  virtual void element(Value value, bool in_array) = 0;

  [[noreturn]] void fail(const std::string& reason) const;

 private:
  bool null() override;
  bool boolean(bool value) override;
  bool number_integer(number_integer_t value) override;
  bool number_unsigned(number_unsigned_t value) override;
  bool number_float(number_float_t value, const string_t& text) override;
  bool string(string_t& value) override;
  bool binary(binary_t& value) override;
  bool start_object(std::size_t size) override;
  bool key(string_t& value) override;
  bool end_object() override;
  bool start_array(std::size_t size) override;
  bool end_array() override;
  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception& error) override;

  bool scalar(Value value);

  std::string file_;
  std::uint64_t depth_ = 0;  // open objects and arrays
  bool in_array_ = false;    // the value at depth 2 is an array
};

}  // namespace penstock::io
