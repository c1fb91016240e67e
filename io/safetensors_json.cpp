#include "io/safetensors_json.hpp"

#include <fmt/format.h>

#include <utility>

#include "io/error.hpp"
#include "io/json.hpp"

namespace penstock::io {
namespace {

// Depths at which things open: the document, a section, a value that is an array.
constexpr std::uint64_t kDocument = 0;
constexpr std::uint64_t kSection = 1;
constexpr std::uint64_t kValue = 2;
constexpr std::uint64_t kElement = 3;

}  // namespace

void SectionedJson::walk(std::string_view text) {
  nlohmann::json_sax<nlohmann::json>* const handler = this;  // whose functions are public
  nlohmann::json::sax_parse(text.begin(), text.end(), handler);
}

void SectionedJson::fail(const std::string& reason) const { throw FileError(file_, reason); }

bool SectionedJson::scalar(Value value) {
  if (depth_ == kDocument) fail("the JSON is not an object");
  if (depth_ == kSection) fail("the JSON is not an object of objects");
  if (depth_ == kValue || (depth_ == kElement && in_array_)) {
    element(std::move(value), depth_ == kElement);
  }
  return true;
}

bool SectionedJson::null() { return scalar(Other{}); }
bool SectionedJson::boolean(bool) { return scalar(Other{}); }
bool SectionedJson::number_integer(number_integer_t) { return scalar(Other{}); }  // below zero
bool SectionedJson::number_unsigned(number_unsigned_t value) {
  return scalar(std::uint64_t{value});
}
bool SectionedJson::number_float(number_float_t, const string_t&) { return scalar(Other{}); }
bool SectionedJson::string(string_t& value) { return scalar(std::move(value)); }
bool SectionedJson::binary(binary_t&) { return scalar(Other{}); }

bool SectionedJson::start_object(std::size_t) {
  if (depth_ >= kValue) scalar(Other{});
  ++depth_;
  return true;
}

bool SectionedJson::key(string_t& value) {
  if (depth_ == kSection) begin_section(value);
  if (depth_ == kValue) {
    in_array_ = false;
    begin_value(value);
  }
  return true;
}

bool SectionedJson::end_object() {
  if (--depth_ == kSection) end_section();
  return true;
}

bool SectionedJson::start_array(std::size_t) {
  if (depth_ < kValue || depth_ >= kElement) scalar(Other{});
  if (depth_ == kValue) in_array_ = true;
  ++depth_;
  return true;
}

bool SectionedJson::end_array() {
  --depth_;
  return true;
}

bool SectionedJson::parse_error(std::size_t position, const std::string&,
                                const nlohmann::json::exception& error) {
  fail(fmt::format("broken JSON at byte {} of it: {}", position, reason_of(error)));
}

}  // namespace penstock::io
