#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>

#include "model/config.hpp"
#include "model/config_fields.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;

std::string_view to_string(RopeScaling::Kind kind) {
  switch (kind) {
    case RopeScaling::Kind::linear:
      return "linear";
    case RopeScaling::Kind::llama3:
      return "llama3";
    case RopeScaling::Kind::none:
      break;
  }
  return "default";
}

// The attributes of /config by name. Unknown ones are left to newer versions.
class Attributes {
 public:
  explicit Attributes(const std::vector<io::NamedAttribute>& attributes)
      : attributes_(attributes) {}

  std::int64_t integer(std::string_view name) const { return get<std::int64_t>(name, "integer"); }
  double real(std::string_view name) const { return get<double>(name, "floating-point number"); }
  std::string text(std::string_view name) const { return get<std::string>(name, "string"); }
  bool boolean(std::string_view name) const {
    const std::int64_t value = integer(name);
    if (value != 0 && value != 1) fail_config(name, fmt::format("is {}, not 0 or 1", value));
    return value == 1;
  }

 private:
  template <typename T>
  T get(std::string_view name, std::string_view kind) const {
    for (const io::NamedAttribute& attribute : attributes_) {
      if (attribute.name != name) continue;
      if (const T* value = std::get_if<T>(&attribute.value)) return *value;
      fail_config(name, fmt::format("is not of type {}", kind));
    }
    fail_config(name, "is missing");
  }

  const std::vector<io::NamedAttribute>& attributes_;
};

}  // namespace

std::vector<io::NamedAttribute> to_attributes(const ModelConfig& config) {
  validate(config);
  const RopeScaling& scaling = config.rope_scaling;
  const auto flag = [](bool value) { return std::int64_t{value ? 1 : 0}; };
  return {
      {"architecture", config.architecture},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"num_layers", config.num_layers},
      {"num_heads", config.num_heads},
      {"num_kv_heads", config.num_kv_heads},
      {"head_dim", config.head_dim},
      {"vocab_size", config.vocab_size},
      {"max_position", config.max_position},
      {"rms_norm_eps", config.rms_norm_eps},
      {"rope_theta", config.rope_theta},
      {"rope_scaling", std::string(to_string(scaling.kind))},
      {"rope_factor", scaling.factor},
      {"rope_low_freq_factor", scaling.low_freq_factor},
      {"rope_high_freq_factor", scaling.high_freq_factor},
      {"rope_original_max_position", scaling.original_max_position},
      {"tie_word_embeddings", flag(config.tie_word_embeddings)},
      {"attention_bias", flag(config.attention_bias)},
      {"mlp_bias", flag(config.mlp_bias)},
      {"eos_token_ids", fmt::format("[{}]", fmt::join(config.eos_token_ids, ", "))},
      {"bos_token_id", std::int64_t{config.bos_token_id}},
  };
}

ModelConfig from_attributes(const std::vector<io::NamedAttribute>& attributes) {
  const Attributes values(attributes);
  ModelConfig config;
  config.architecture = values.text("architecture");
  config.hidden_size = values.integer("hidden_size");
  config.intermediate_size = values.integer("intermediate_size");
  config.num_layers = values.integer("num_layers");
  config.num_heads = values.integer("num_heads");
  config.num_kv_heads = values.integer("num_kv_heads");
  config.head_dim = values.integer("head_dim");
  config.vocab_size = values.integer("vocab_size");
  config.max_position = values.integer("max_position");
  config.rms_norm_eps = values.real("rms_norm_eps");
  config.rope_theta = values.real("rope_theta");
  RopeScaling& scaling = config.rope_scaling;
  const std::string kind = values.text("rope_scaling");
  if (kind == "linear") {
    scaling.kind = RopeScaling::Kind::linear;
  } else if (kind == "llama3") {
    scaling.kind = RopeScaling::Kind::llama3;
  } else if (kind != "default") {
    fail_config("rope_scaling",
                fmt::format("{} is not supported; supported: {}", shown(kind), kRopeKinds));
  }
  scaling.factor = values.real("rope_factor");
  scaling.low_freq_factor = values.real("rope_low_freq_factor");
  scaling.high_freq_factor = values.real("rope_high_freq_factor");
  scaling.original_max_position = values.integer("rope_original_max_position");
  config.tie_word_embeddings = values.boolean("tie_word_embeddings");
  config.attention_bias = values.boolean("attention_bias");
  config.mlp_bias = values.boolean("mlp_bias");
  const json ids = json::parse(values.text("eos_token_ids"), nullptr, false);
  if (!ids.is_array()) fail_config("eos_token_ids", "is not a list of token ids");
  config.eos_token_ids = parse_token_ids("eos_token_ids", ids);
  const std::int64_t bos = values.integer("bos_token_id");
  config.bos_token_id = bos == -1 ? -1 : parse_token_ids("bos_token_id", bos).front();
  validate(config);
  return config;
}

}  // namespace penstock::model
