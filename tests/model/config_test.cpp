#include "model/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

json tiny() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", 64},
          {"intermediate_size", 160},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"vocab_size", 300},
          {"hidden_act", "silu"}};
}

ModelConfig parse(const json& object) { return parse_hf_config(object.dump()); }

// What parse says about a config it refuses.
std::string refusal(const json& object) {
  try {
    parse(object);
  } catch (const ModelError& error) {
    return error.what();
  }
  return "accepted";
}

json with(const char* key, json value) {
  json object = tiny();
  object[key] = std::move(value);
  return object;
}

// config.json of meta-llama/Llama-3.2-1B-Instruct, what of it describes the model.
constexpr const char* kLlama32 = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64,
  "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
  "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
  "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16,
  "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
  "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256})";

TEST(Config, ReadsLlama32) {
  const ModelConfig config = parse_hf_config(kLlama32);
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.hidden_size, 2048);
  EXPECT_EQ(config.intermediate_size, 8192);
  EXPECT_EQ(config.num_layers, 16);
  EXPECT_EQ(config.num_heads, 32);
  EXPECT_EQ(config.num_kv_heads, 8);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.vocab_size, 128256);
  EXPECT_EQ(config.max_position, 131072);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.rope_theta, 500000.0);
  EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::llama3);
  EXPECT_EQ(config.rope_scaling.factor, 32.0);
  EXPECT_EQ(config.rope_scaling.low_freq_factor, 1.0);
  EXPECT_EQ(config.rope_scaling.high_freq_factor, 4.0);
  EXPECT_EQ(config.rope_scaling.original_max_position, 8192);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(128001, 128008, 128009));
  EXPECT_EQ(config.bos_token_id, 128000);
}

// 1,235,814,400 is the published size of Llama-3.2-1B, with the tied embedding counted once.
TEST(Config, CountsParameters) {
  const ModelConfig config = parse_hf_config(kLlama32);
  EXPECT_EQ(parameter_count(config), 1235814400);
}

TEST(Config, CountsBiases) {
  ModelConfig config = parse(tiny());
  const std::int64_t plain = parameter_count(config);
  config.attention_bias = true;  // q 64, k 32, v 32, o 64
  EXPECT_EQ(parameter_count(config) - plain, 3 * 192);
  config.attention_bias = false;
  config.mlp_bias = true;  // gate 160, up 160, down 64
  EXPECT_EQ(parameter_count(config) - plain, 3 * 384);
}

// The defaults of transformers' LlamaConfig.
TEST(Config, Defaults) {
  json object = tiny();
  object.erase("num_key_value_heads");
  object.erase("hidden_act");
  const ModelConfig config = parse(object);
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.max_position, 2048);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::none);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_FALSE(config.mlp_bias);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config.bos_token_id, 1);
}

TEST(Config, NullIsAbsentAndMeansNoSpecialToken) {
  json object = tiny();
  for (const char* key : {"num_key_value_heads", "head_dim", "rope_scaling", "bos_token_id",
                          "eos_token_id", "quantization_config"}) {
    object[key] = nullptr;
  }
  const ModelConfig config = parse(object);
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_TRUE(config.eos_token_ids.empty());
  EXPECT_EQ(config.bos_token_id, -1);
}

TEST(Config, HeadDimNeedNotFollowFromHidden) {
  EXPECT_EQ(parse(with("head_dim", 48)).head_dim, 48);
}

TEST(Config, RopeScalingInAllSpellings) {
  const json llama3 = {{"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 1024}};
  const auto spelled = [&](const char* key, const char* kind_key) {
    json inside = llama3;
    inside[kind_key] = "llama3";
    return parse(with(key, inside)).rope_scaling;
  };
  for (const RopeScaling& scaling :
       {spelled("rope_scaling", "type"), spelled("rope_scaling", "rope_type"),
        spelled("rope_parameters", "rope_type")}) {
    EXPECT_EQ(scaling.kind, RopeScaling::Kind::llama3);
    EXPECT_EQ(scaling.factor, 8.0);
    EXPECT_EQ(scaling.original_max_position, 1024);
  }
  const ModelConfig linear = parse(with("rope_scaling", {{"type", "linear"}, {"factor", 4}}));
  EXPECT_EQ(linear.rope_scaling.kind, RopeScaling::Kind::linear);
  EXPECT_EQ(linear.rope_scaling.factor, 4.0);
}

// As transformers 5 writes it.
TEST(Config, ThetaInsideRopeParameters) {
  const ModelConfig config =
      parse(with("rope_parameters", {{"rope_theta", 77000.0}, {"rope_type", "default"}}));
  EXPECT_EQ(config.rope_theta, 77000.0);
  EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::none);
}

struct Refused {
  const char* key;
  json value;
  const char* message;  // must be part of what is said
};

TEST(Config, RefusesByKey) {
  const std::vector<Refused> cases = {
      {"model_type", "mistral", "model_type: \"mistral\" is not supported; supported: llama"},
      {"architectures", {"LlamaForSequenceClassification"}, "supported: LlamaForCausalLM"},
      {"architectures", "Llama", "architectures: is not an array"},
      {"hidden_act", "gelu", "hidden_act: \"gelu\" is not supported; supported: silu"},
      {"quantization_config", {{"bits", 4}}, "quantization_config: quantized"},
      {"hidden_size", "64", "hidden_size: is not an integer: \"64\""},
      {"hidden_size", 64.5, "hidden_size: is not an integer: 64.5"},
      {"hidden_size", 0, "hidden_size: 0 is out of range 1 to 1048576"},
      {"hidden_size", -64, "hidden_size: -64 is out of range"},
      {"hidden_size", std::uint64_t{1} << 63, "hidden_size: is out of range: 9223372036854775808"},
      {"hidden_size", std::int64_t{1} << 40, "hidden_size: 1099511627776 is out of range"},
      {"intermediate_size", std::int64_t{1} << 30, "intermediate_size: 1073741824 is out of range"},
      {"num_hidden_layers", 1000000, "num_layers: 1000000 is out of range 1 to 8192"},
      {"num_attention_heads", 0, "num_attention_heads: 0 is out of range"},
      {"num_attention_heads", 6, "num_attention_heads 6"},
      {"num_key_value_heads", 3, "num_heads 4 is not a multiple of num_kv_heads 3"},
      {"num_key_value_heads", 8, "num_kv_heads: 8 is out of range 1 to 4"},
      {"head_dim", 15, "head_dim: 15 is odd"},
      {"head_dim", 1 << 20, "head_dim: 1048576 is out of range"},
      {"vocab_size", 0, "vocab_size: 0 is out of range"},
      {"max_position_embeddings", 0, "max_position: 0 is out of range"},
      {"rms_norm_eps", -1e-5, "rms_norm_eps: -1e-05 is out of range"},
      {"rms_norm_eps", "1e-5", "rms_norm_eps: is not a number"},
      {"rope_theta", 0, "rope_theta: 0 is out of range"},
      {"tie_word_embeddings", 1, "tie_word_embeddings: is not true or false: 1"},
      {"eos_token_id", 300, "eos_token_id: 300 is out of range 0 to 299"},
      {"eos_token_id", -1, "eos_token_id: is not a token id: -1"},
      {"eos_token_id", {1, "two"}, "eos_token_id: is not a token id: \"two\""},
      {"bos_token_id", 300, "bos_token_id: 300 is out of range"},
      {"partial_rotary_factor", 0.5, "partial_rotary_factor: only 1"},
      {"rope_scaling", "linear", "rope_scaling: is not an object"},
      {"rope_scaling", {{"type", "linear"}}, "rope_scaling.factor: is missing"},
      {"rope_scaling", {{"type", "linear"}, {"factor", 0.0}}, "rope factor: 0 is out of range"},
      {"rope_scaling",
       {{"rope_type", "yarn"}, {"factor", 4.0}},
       "rope_scaling.rope_type: \"yarn\" is not supported; supported: default, linear, llama3"},
      {"rope_scaling",
       {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}},
       "high_freq_factor: 4 is not above low_freq_factor 4"},
      {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}}, "low_freq_factor: is missing"},
  };
  for (const Refused& one : cases) {
    EXPECT_THAT(refusal(with(one.key, one.value)),
                AllOf(HasSubstr("model config: "), HasSubstr(one.message)))
        << one.key << " " << one.value;
  }
}

TEST(Config, RefusesMissingKeys) {
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "vocab_size"}) {
    json object = tiny();
    object.erase(key);
    EXPECT_EQ(refusal(object), std::string("model config: ") + key + ": is missing");
  }
}

TEST(Config, RefusesWhatIsNotAnObject) {
  EXPECT_THROW(parse_hf_config(""), ModelError);
  EXPECT_THROW(parse_hf_config("[1, 2]"), ModelError);
  EXPECT_THROW(parse_hf_config("{\"hidden_size\": "), ModelError);
  EXPECT_THROW(parse_hf_config(std::string(100000, '[')), ModelError);
}

TEST(Config, GenerationDefaultsAddStopIds) {
  ModelConfig config = parse(with("eos_token_id", 5));
  add_generation_defaults(R"({"eos_token_id": [7, 5, 9], "temperature": 0.6})", config);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(5, 7, 9));
  add_generation_defaults(R"({"eos_token_id": 11})", config);
  add_generation_defaults(R"({})", config);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(5, 7, 9, 11));
  EXPECT_THROW(add_generation_defaults(R"({"eos_token_id": 300})", config), ModelError);
}

ModelConfig all_fields() {
  ModelConfig config = parse_hf_config(kLlama32);
  config.num_kv_heads = 4;
  config.rms_norm_eps = 3e-6;
  config.rope_scaling = {RopeScaling::Kind::llama3, 16.0, 2.0, 5.0, 4096};
  config.attention_bias = true;
  config.mlp_bias = true;
  return config;
}

TEST(Config, AttributesKeepEveryField) {
  const ModelConfig before = all_fields();
  const ModelConfig after = from_attributes(to_attributes(before));
  EXPECT_EQ(after.architecture, before.architecture);
  EXPECT_EQ(after.hidden_size, before.hidden_size);
  EXPECT_EQ(after.intermediate_size, before.intermediate_size);
  EXPECT_EQ(after.num_layers, before.num_layers);
  EXPECT_EQ(after.num_heads, before.num_heads);
  EXPECT_EQ(after.num_kv_heads, before.num_kv_heads);
  EXPECT_EQ(after.head_dim, before.head_dim);
  EXPECT_EQ(after.vocab_size, before.vocab_size);
  EXPECT_EQ(after.max_position, before.max_position);
  EXPECT_EQ(after.rms_norm_eps, before.rms_norm_eps);
  EXPECT_EQ(after.rope_theta, before.rope_theta);
  EXPECT_EQ(after.rope_scaling.kind, before.rope_scaling.kind);
  EXPECT_EQ(after.rope_scaling.factor, before.rope_scaling.factor);
  EXPECT_EQ(after.rope_scaling.low_freq_factor, before.rope_scaling.low_freq_factor);
  EXPECT_EQ(after.rope_scaling.high_freq_factor, before.rope_scaling.high_freq_factor);
  EXPECT_EQ(after.rope_scaling.original_max_position, before.rope_scaling.original_max_position);
  EXPECT_EQ(after.tie_word_embeddings, before.tie_word_embeddings);
  EXPECT_EQ(after.attention_bias, before.attention_bias);
  EXPECT_EQ(after.mlp_bias, before.mlp_bias);
  EXPECT_EQ(after.eos_token_ids, before.eos_token_ids);
  EXPECT_EQ(after.bos_token_id, before.bos_token_id);
}

TEST(Config, NamesOfAttributes) {
  std::vector<std::string> names;
  for (const auto& attribute : to_attributes(all_fields())) names.push_back(attribute.name);
  EXPECT_THAT(names, ElementsAre("architecture", "hidden_size", "intermediate_size", "num_layers",
                                 "num_heads", "num_kv_heads", "head_dim", "vocab_size",
                                 "max_position", "rms_norm_eps", "rope_theta", "rope_scaling",
                                 "rope_factor", "rope_low_freq_factor", "rope_high_freq_factor",
                                 "rope_original_max_position", "tie_word_embeddings",
                                 "attention_bias", "mlp_bias", "eos_token_ids", "bos_token_id"));
}

TEST(Config, AttributesAreNotTrusted) {
  const auto refused = [](const char* name, io::Attribute value) -> std::string {
    auto attributes = to_attributes(all_fields());
    for (auto& attribute : attributes) {
      if (attribute.name == name) attribute.value = std::move(value);
    }
    try {
      from_attributes(attributes);
    } catch (const ModelError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(refused("architecture", "gpt"), HasSubstr("architecture: \"gpt\""));
  EXPECT_THAT(refused("hidden_size", 2048.0), HasSubstr("hidden_size: is not of type integer"));
  EXPECT_THAT(refused("rms_norm_eps", std::int64_t{0}), HasSubstr("rms_norm_eps: is not of type"));
  EXPECT_THAT(refused("num_layers", std::int64_t{1} << 60), HasSubstr("num_layers: 115292"));
  EXPECT_THAT(refused("rope_scaling", "yarn"), HasSubstr("supported: default, linear, llama3"));
  EXPECT_THAT(refused("tie_word_embeddings", std::int64_t{2}), HasSubstr("is 2, not 0 or 1"));
  EXPECT_THAT(refused("eos_token_ids", "[1, x]"), HasSubstr("eos_token_ids: is not a list"));
  EXPECT_THAT(refused("bos_token_id", std::int64_t{-2}), HasSubstr("bos_token_id"));
  auto attributes = to_attributes(all_fields());
  attributes.erase(attributes.begin() + 3);
  EXPECT_THROW(from_attributes(attributes), ModelError);
}

TEST(Config, ProductsOfTheLargestSizesFit) {
  ModelConfig config = all_fields();
  config.tie_word_embeddings = false;
  config.hidden_size = 1 << 20;
  config.intermediate_size = 1 << 22;
  config.num_layers = 1 << 13;
  config.num_heads = config.num_kv_heads = 1 << 14;
  config.head_dim = 1 << 8;
  config.vocab_size = 1 << 24;
  EXPECT_NO_THROW(validate(config));
  const __int128 exact = (__int128{7} * (1LL << 42) + 2 * (1LL << 20) + 4 * (1LL << 22) +
                          (1LL << 20) * 2 + (1LL << 23) - (1LL << 22)) *
                             (1 << 13) +
                         2 * (__int128{1} << 44) + (1 << 20);
  EXPECT_EQ(static_cast<__int128>(parameter_count(config)), exact);
  EXPECT_LT(exact * 4, (__int128{1} << 63));
  config.head_dim = 1 << 9;
  EXPECT_THROW(validate(config), ModelError);
}

}  // namespace
}  // namespace penstock::model
