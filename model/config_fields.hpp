#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

// What reading a config from JSON and from attributes share.
namespace penstock::model {

inline constexpr const char* kRopeKinds = "default, linear, llama3";  // supported

// Throws ModelError "model config: KEY: REASON".
[[noreturn]] void fail_config(std::string_view key, std::string_view reason);

// A short form of a value for messages: a hostile file must not fill the screen.
std::string shown(const nlohmann::json& value);

// A token id, or a list of them without repetitions; `key` is for the message.
std::vector<std::int32_t> parse_token_ids(std::string_view key, const nlohmann::json& value);

}  // namespace penstock::model
