#include "model/config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "model/config_fields.hpp"
#include "model/error.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;

// Generous for any model known, and small enough that no product of sizes leaves 63 bits:
// 2^13 layers of at most 7 * 2^42 parameters of 4 bytes are below 2^60.
constexpr std::int64_t kMaxHidden = std::int64_t{1} << 20;
constexpr std::int64_t kMaxIntermediate = std::int64_t{1} << 22;
constexpr std::int64_t kMaxLayers = std::int64_t{1} << 13;
constexpr std::int64_t kMaxHeads = std::int64_t{1} << 14;
constexpr std::int64_t kMaxHeadDim = std::int64_t{1} << 12;
constexpr std::int64_t kMaxAttentionWidth = std::int64_t{1} << 22;
constexpr std::int64_t kMaxVocab = std::int64_t{1} << 24;
constexpr std::int64_t kMaxPosition = std::int64_t{1} << 30;

// Typed look-ups in one JSON object. A key that is null counts as absent, as in transformers.
class Keys {
 public:
  Keys(const json& object, std::string prefix) : object_(&object), prefix_(std::move(prefix)) {}

  std::string name(std::string_view key) const { return prefix_ + std::string(key); }

  const json* find(std::string_view key) const {
    const auto it = object_->find(key);
    return it == object_->end() || it->is_null() ? nullptr : &*it;
  }

  std::optional<std::int64_t> integer(std::string_view key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number_integer()) fail_config(name(key), "is not an integer: " + shown(*value));
    if (value->is_number_unsigned() &&
        value->get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
      fail_config(name(key), "is out of range: " + shown(*value));
    }
    return value->get<std::int64_t>();
  }
  std::int64_t required_integer(std::string_view key) const {
    const auto value = integer(key);
    if (!value) fail_config(name(key), "is missing");
    return *value;
  }

  std::optional<double> real(std::string_view key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number()) fail_config(name(key), "is not a number: " + shown(*value));
    return value->get<double>();
  }
  double required_real(std::string_view key) const {
    const auto value = real(key);
    if (!value) fail_config(name(key), "is missing");
    return *value;
  }

  bool boolean(std::string_view key, bool absent) const {
    const json* value = find(key);
    if (value == nullptr) return absent;
    if (!value->is_boolean()) fail_config(name(key), "is not true or false: " + shown(*value));
    return value->get<bool>();
  }

  std::optional<std::string> text(std::string_view key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) fail_config(name(key), "is not a string: " + shown(*value));
    return value->get<std::string>();
  }

  std::optional<Keys> object(std::string_view key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_object()) fail_config(name(key), "is not an object: " + shown(*value));
    return Keys(*value, name(key) + ".");
  }

 private:
  const json* object_;
  std::string prefix_;
};

json parse_object(std::string_view text) {
  try {
    json object = json::parse(text);
    if (!object.is_object()) throw ModelError("model config: is not a JSON object");
    return object;
  } catch (const json::exception& error) {
    throw ModelError(fmt::format("model config: is not JSON: {}", error.what()));
  }
}

void check_architecture(const Keys& keys) {
  const auto type = keys.text("model_type");
  const json* names = keys.find("architectures");
  if (!type && names == nullptr) fail_config("model_type", "is missing; supported: llama");
  if (type && *type != "llama") {
    fail_config("model_type", fmt::format("{} is not supported; supported: llama", shown(*type)));
  }
  if (names == nullptr) return;
  if (!names->is_array()) fail_config("architectures", "is not an array: " + shown(*names));
  for (const json& name : *names) {
    if (name != "LlamaForCausalLM") {
      fail_config("architectures",
                  fmt::format("{} is not supported; supported: LlamaForCausalLM", shown(name)));
    }
  }
}

// transformers before version 5 writes rope_theta and rope_scaling at the top, from 5 on all in
// rope_parameters; both are read, and a key inside wins over the same key outside.
void parse_rope(const Keys& keys, ModelConfig& config) {
  config.rope_theta = keys.real("rope_theta").value_or(config.rope_theta);
  auto rope = keys.object("rope_scaling");
  if (!rope) rope = keys.object("rope_parameters");
  if (keys.real("partial_rotary_factor").value_or(1.0) != 1.0) {
    fail_config("partial_rotary_factor", "only 1 is supported");
  }
  if (!rope) return;
  config.rope_theta = rope->real("rope_theta").value_or(config.rope_theta);
  if (rope->real("partial_rotary_factor").value_or(1.0) != 1.0) {
    fail_config(rope->name("partial_rotary_factor"), "only 1 is supported");
  }
  const char* kind_key = rope->find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string kind = rope->text(kind_key).value_or("default");
  RopeScaling& scaling = config.rope_scaling;
  if (kind == "default") return;
  if (kind == "linear") {
    scaling.kind = RopeScaling::Kind::linear;
  } else if (kind == "llama3") {
    scaling.kind = RopeScaling::Kind::llama3;
    scaling.low_freq_factor = rope->required_real("low_freq_factor");
    scaling.high_freq_factor = rope->required_real("high_freq_factor");
    scaling.original_max_position =
        rope->integer("original_max_position_embeddings").value_or(config.max_position);
  } else {
    fail_config(rope->name(kind_key),
                fmt::format("{} is not supported; supported: {}", shown(kind), kRopeKinds));
  }
  scaling.factor = rope->required_real("factor");
}

// LlamaConfig's defaults are eos 2 and bos 1; an explicit null means none.
void parse_special_ids(const json& object, const Keys& keys, ModelConfig& config) {
  if (const json* eos = keys.find("eos_token_id")) {
    config.eos_token_ids = parse_token_ids("eos_token_id", *eos);
  } else if (!object.contains("eos_token_id") && config.vocab_size > 2) {
    config.eos_token_ids = {2};
  }
  if (const auto bos = keys.integer("bos_token_id")) {
    if (*bos != -1) config.bos_token_id = parse_token_ids("bos_token_id", *bos).front();
  } else if (!object.contains("bos_token_id") && config.vocab_size > 1) {
    config.bos_token_id = 1;
  }
}

void check_range(std::string_view key, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high) {
    fail_config(key, fmt::format("{} is out of range {} to {}", value, low, high));
  }
}

void check_range(std::string_view key, double value, double low, double high) {
  if (!(value >= low && value <= high)) {  // also NaN
    fail_config(key, fmt::format("{} is out of range {} to {}", value, low, high));
  }
}

}  // namespace

ModelConfig parse_hf_config(std::string_view config_json) {
  const json object = parse_object(config_json);
  const Keys keys(object, "");
  check_architecture(keys);
  if (keys.find("quantization_config") != nullptr) {
    fail_config("quantization_config",
                "quantized checkpoints are not supported; use the f32, f16 or "
                "bf16 original, or a GGUF");
  }
  const std::string activation = keys.text("hidden_act").value_or("silu");
  if (activation != "silu") {
    fail_config("hidden_act",
                fmt::format("{} is not supported; supported: silu", shown(activation)));
  }
  ModelConfig config;
  config.hidden_size = keys.required_integer("hidden_size");
  config.intermediate_size = keys.required_integer("intermediate_size");
  config.num_layers = keys.required_integer("num_hidden_layers");
  config.num_heads = keys.required_integer("num_attention_heads");
  config.num_kv_heads = keys.integer("num_key_value_heads").value_or(config.num_heads);
  check_range("num_attention_heads", config.num_heads, 1, kMaxHeads);
  if (const auto head_dim = keys.integer("head_dim")) {
    config.head_dim = *head_dim;
  } else if (config.hidden_size % config.num_heads != 0) {
    fail_config("head_dim", fmt::format("is missing, and hidden_size {} is not a multiple of "
                                        "num_attention_heads {}",
                                        config.hidden_size, config.num_heads));
  } else {
    config.head_dim = config.hidden_size / config.num_heads;
  }
  config.vocab_size = keys.required_integer("vocab_size");
  config.max_position = keys.integer("max_position_embeddings").value_or(2048);
  config.rms_norm_eps = keys.real("rms_norm_eps").value_or(1e-6);
  config.tie_word_embeddings = keys.boolean("tie_word_embeddings", false);
  config.attention_bias = keys.boolean("attention_bias", false);
  config.mlp_bias = keys.boolean("mlp_bias", false);
  parse_rope(keys, config);
  parse_special_ids(object, keys, config);
  validate(config);
  return config;
}

void add_generation_defaults(std::string_view generation_config_json, ModelConfig& config) {
  const json object = parse_object(generation_config_json);
  const json* eos = Keys(object, "").find("eos_token_id");
  if (eos == nullptr) return;
  for (const std::int32_t id : parse_token_ids("eos_token_id", *eos)) {
    const auto& known = config.eos_token_ids;
    if (std::find(known.begin(), known.end(), id) == known.end())
      config.eos_token_ids.push_back(id);
  }
  validate(config);
}

void validate(const ModelConfig& config) {
  if (config.architecture != "llama") {
    fail_config("architecture",
                fmt::format("{} is not supported; supported: llama", shown(config.architecture)));
  }
  check_range("hidden_size", config.hidden_size, 1, kMaxHidden);
  check_range("intermediate_size", config.intermediate_size, 1, kMaxIntermediate);
  check_range("num_layers", config.num_layers, 1, kMaxLayers);
  check_range("num_heads", config.num_heads, 1, kMaxHeads);
  check_range("num_kv_heads", config.num_kv_heads, 1, config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    fail_config("num_kv_heads", fmt::format("num_heads {} is not a multiple of num_kv_heads {}",
                                            config.num_heads, config.num_kv_heads));
  }
  check_range("head_dim", config.head_dim, 2, kMaxHeadDim);
  if (config.head_dim % 2 != 0) {
    fail_config("head_dim",
                fmt::format("{} is odd; rotary embeddings need pairs", config.head_dim));
  }
  if (config.num_heads * config.head_dim > kMaxAttentionWidth) {
    fail_config("head_dim", fmt::format("num_heads * head_dim = {} is above {}",
                                        config.num_heads * config.head_dim, kMaxAttentionWidth));
  }
  check_range("vocab_size", config.vocab_size, 1, kMaxVocab);
  check_range("max_position", config.max_position, 1, kMaxPosition);
  check_range("rms_norm_eps", config.rms_norm_eps, 0.0, 0.1);
  check_range("rope_theta", config.rope_theta, 1.0, 1e15);
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind != RopeScaling::Kind::none) {
    check_range("rope factor", scaling.factor, 1.0, 1e6);
  }
  if (scaling.kind == RopeScaling::Kind::llama3) {
    check_range("rope low_freq_factor", scaling.low_freq_factor, 1e-6, 1e6);
    check_range("rope high_freq_factor", scaling.high_freq_factor, 1e-6, 1e6);
    if (scaling.high_freq_factor <= scaling.low_freq_factor) {
      fail_config("rope high_freq_factor",
                  fmt::format("{} is not above low_freq_factor {}", scaling.high_freq_factor,
                              scaling.low_freq_factor));
    }
    check_range("rope original_max_position", scaling.original_max_position, 1, kMaxPosition);
  }
  for (const std::int32_t id : config.eos_token_ids) {
    check_range("eos_token_id", std::int64_t{id}, 0, config.vocab_size - 1);
  }
  check_range("bos_token_id", std::int64_t{config.bos_token_id}, -1, config.vocab_size - 1);
}

std::int64_t parameter_count(const ModelConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t q = config.num_heads * config.head_dim;
  const std::int64_t kv = config.num_kv_heads * config.head_dim;
  std::int64_t layer =
      2 * hidden + 2 * q * hidden + 2 * kv * hidden + 3 * config.intermediate_size * hidden;
  if (config.attention_bias) layer += q + 2 * kv + hidden;
  if (config.mlp_bias) layer += 2 * config.intermediate_size + hidden;
  const std::int64_t tables = config.tie_word_embeddings ? 1 : 2;
  return config.num_layers * layer + tables * config.vocab_size * hidden + hidden;
}

}  // namespace penstock::model
