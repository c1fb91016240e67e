#include "model/config_fields.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxIds = 64;

std::int32_t parse_token_id(std::string_view key, const json& value) {
  constexpr std::int64_t limit = std::numeric_limits<std::int32_t>::max();
  const bool fits = value.is_number_unsigned()
                        ? value.get<std::uint64_t>() <= std::uint64_t{limit}
                        : value.is_number_integer() && value.get<std::int64_t>() >= 0 &&
                              value.get<std::int64_t>() <= limit;
  if (!fits) fail_config(key, "is not a token id: " + shown(value));
  return static_cast<std::int32_t>(value.get<std::int64_t>());
}

}  // namespace

void fail_config(std::string_view key, std::string_view reason) {
  throw ModelError(fmt::format("model config: {}: {}", key, reason));
}

std::string shown(const json& value) {
  if (value.is_structured()) return value.is_array() ? "an array" : "an object";
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

std::vector<std::int32_t> parse_token_ids(std::string_view key, const json& value) {
  std::vector<std::int32_t> ids;
  const auto add = [&](const json& one) {
    const std::int32_t id = parse_token_id(key, one);
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
    if (ids.size() > kMaxIds) fail_config(key, fmt::format("has more than {} ids", kMaxIds));
  };
  if (value.is_array()) {
    for (const json& one : value) add(one);
  } else {
    add(value);
  }
  return ids;
}

}  // namespace penstock::model
