#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "model/text/regex.hpp"

// Reading the parts of tokenizer.json. All throw ModelError that names `where`, the part.
namespace penstock::model {

// Sequences may hold sequences; a file of nothing else must not end the stack.
inline constexpr int max_part_depth = 16;
inline constexpr std::size_t max_parts = 64;

// A required field.
const nlohmann::json& field(const nlohmann::json& json, std::string_view name,
                            std::string_view where);
std::string text_field(const nlohmann::json& json, std::string_view name, std::string_view where);
bool flag_field(const nlohmann::json& json, std::string_view name, std::string_view where);
bool flag_field_or(const nlohmann::json& json, std::string_view name, bool otherwise,
                   std::string_view where);

// A token's id; nothing if the value is not an integer from 0 to 2147483647.
std::optional<std::int32_t> token_id(const nlohmann::json& value);

// {"String": "..."} or {"Regex": "..."} of the field "pattern".
Regex pattern_field(const nlohmann::json& json, std::string_view where);

// A part's "type", and the elements of a Sequence; `depth` counts the sequences around it.
std::string part_type(const nlohmann::json& json, int depth, std::string_view where);
const nlohmann::json& part_list(const nlohmann::json& json, std::string_view name,
                                std::string_view where);

}  // namespace penstock::model
