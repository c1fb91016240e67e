#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace penstock::model {

// The config.json of a preset, with the published shape of the model; nothing if the name is
// not one. Source: the models' own config.json at huggingface.co.
std::optional<std::string> preset_config(std::string_view name);

}  // namespace penstock::model
