#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "io/checkpoint.hpp"

namespace penstock::model {

// What a checkpoint holds: format, architecture, config, dtype, parameters, layers, bytes,
// digest, tokenizer, every tensor with shape, dtype, offset.
nlohmann::json describe_checkpoint(const io::CheckpointReader& checkpoint);

// The same for people; a line for each tensor only if `all_tensors`.
std::string format_description(const nlohmann::json& description, bool all_tensors);

}  // namespace penstock::model
