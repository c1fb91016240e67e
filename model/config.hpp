#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint.hpp"

namespace penstock::model {

// Rotary embedding scaling. Source: transformers, modeling_rope_utils.py.
struct RopeScaling {
  enum class Kind { none, linear, llama3 } kind = Kind::none;
  double factor = 1.0;
  double low_freq_factor = 1.0;               // llama3
  double high_freq_factor = 4.0;              // llama3
  std::int64_t original_max_position = 8192;  // llama3
};

// The shape of a decoder of the Llama family.
struct ModelConfig {
  std::string architecture = "llama";
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t num_layers = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;
  std::int64_t max_position = 0;  // context limit, tokens
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // on q, k, v and o, as LlamaConfig's attention_bias
  bool mlp_bias = false;
  std::vector<std::int32_t> eos_token_ids;  // stop ids, from generation defaults and config
  std::int32_t bos_token_id = -1;           // -1: none
};

// From a Hugging Face config.json. Throws ModelError that names the key: missing, wrong type, out
// of range, or an architecture or rope type that is not supported (naming those that are).
ModelConfig parse_hf_config(std::string_view config_json);

// Adds the stop ids (eos_token_id, one or a list) of a generation_config.json to those of the
// config. Throws ModelError as parse_hf_config does.
void add_generation_defaults(std::string_view generation_config_json, ModelConfig& config);

// To and from the attributes of /config. Both check all limits: no value is trusted.
std::vector<io::NamedAttribute> to_attributes(const ModelConfig& config);
ModelConfig from_attributes(const std::vector<io::NamedAttribute>& attributes);

// Throws ModelError unless every size is positive and plausible (heads divisible by kv heads,
// even head_dim, products that fit in 63 bits, …).
void validate(const ModelConfig& config);

// Parameters of the network, as models' names count them: a tied head is the embedding.
std::int64_t parameter_count(const ModelConfig& config);

}  // namespace penstock::model
