#include "model/weights.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using testing::ElementsAre;

ModelConfig tiny() {
  ModelConfig config;
  config.hidden_size = 24;
  config.intermediate_size = 40;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;  // not hidden / heads
  config.vocab_size = 100;
  config.max_position = 64;
  return config;
}

std::vector<std::string> names(const std::vector<WeightSpec>& specs) {
  std::vector<std::string> result;
  for (const WeightSpec& spec : specs) result.push_back(spec.name);
  return result;
}

TEST(Weights, InFileOrder) {
  EXPECT_THAT(names(weight_specs(tiny())),
              ElementsAre("/embed/weight", "/layers/0000/attn/norm", "/layers/0000/attn/q",
                          "/layers/0000/attn/k", "/layers/0000/attn/v", "/layers/0000/attn/o",
                          "/layers/0000/mlp/norm", "/layers/0000/mlp/gate", "/layers/0000/mlp/up",
                          "/layers/0000/mlp/down", "/layers/0001/attn/norm", "/layers/0001/attn/q",
                          "/layers/0001/attn/k", "/layers/0001/attn/v", "/layers/0001/attn/o",
                          "/layers/0001/mlp/norm", "/layers/0001/mlp/gate", "/layers/0001/mlp/up",
                          "/layers/0001/mlp/down", "/final/norm", "/head/weight"));
}

TEST(Weights, BiasesFollowTheirMatrices) {
  ModelConfig config = tiny();
  config.num_layers = 1;
  config.attention_bias = true;
  config.mlp_bias = true;
  EXPECT_THAT(
      names(weight_specs(config)),
      ElementsAre("/embed/weight", "/layers/0000/attn/norm", "/layers/0000/attn/q",
                  "/layers/0000/attn/q_bias", "/layers/0000/attn/k", "/layers/0000/attn/k_bias",
                  "/layers/0000/attn/v", "/layers/0000/attn/v_bias", "/layers/0000/attn/o",
                  "/layers/0000/attn/o_bias", "/layers/0000/mlp/norm", "/layers/0000/mlp/gate",
                  "/layers/0000/mlp/gate_bias", "/layers/0000/mlp/up", "/layers/0000/mlp/up_bias",
                  "/layers/0000/mlp/down", "/layers/0000/mlp/down_bias", "/final/norm",
                  "/head/weight"));
}

// Names and shapes as transformers' LlamaForCausalLM.state_dict() lists them for this config, and
// as llama.cpp's gguf-py names them.
TEST(Weights, ForeignNamesAndShapes) {
  struct Expected {
    const char* gguf;
    std::vector<std::uint64_t> shape;
  };
  const std::map<std::string, Expected> expected = {
      {"model.embed_tokens.weight", {"token_embd.weight", {100, 24}}},
      {"model.layers.1.input_layernorm.weight", {"blk.1.attn_norm.weight", {24}}},
      {"model.layers.1.self_attn.q_proj.weight", {"blk.1.attn_q.weight", {32, 24}}},
      {"model.layers.1.self_attn.k_proj.weight", {"blk.1.attn_k.weight", {16, 24}}},
      {"model.layers.1.self_attn.v_proj.weight", {"blk.1.attn_v.weight", {16, 24}}},
      {"model.layers.1.self_attn.o_proj.weight", {"blk.1.attn_output.weight", {24, 32}}},
      {"model.layers.1.post_attention_layernorm.weight", {"blk.1.ffn_norm.weight", {24}}},
      {"model.layers.1.mlp.gate_proj.weight", {"blk.1.ffn_gate.weight", {40, 24}}},
      {"model.layers.1.mlp.up_proj.weight", {"blk.1.ffn_up.weight", {40, 24}}},
      {"model.layers.1.mlp.down_proj.weight", {"blk.1.ffn_down.weight", {24, 40}}},
      {"model.norm.weight", {"output_norm.weight", {24}}},
      {"lm_head.weight", {"output.weight", {100, 24}}},
      {"model.layers.1.self_attn.q_proj.bias", {"blk.1.attn_q.bias", {32}}},
      {"model.layers.1.self_attn.o_proj.bias", {"blk.1.attn_output.bias", {24}}},
      {"model.layers.1.mlp.up_proj.bias", {"blk.1.ffn_up.bias", {40}}},
      {"model.layers.1.mlp.down_proj.bias", {"blk.1.ffn_down.bias", {24}}},
  };
  ModelConfig config = tiny();
  config.attention_bias = true;
  config.mlp_bias = true;
  std::size_t found = 0;
  for (const WeightSpec& spec : weight_specs(config)) {
    EXPECT_EQ(spec.is_matrix, spec.shape.size() == 2) << spec.name;
    const auto it = expected.find(spec.hf_name);
    if (it == expected.end()) continue;
    ++found;
    EXPECT_EQ(spec.gguf_name, it->second.gguf);
    EXPECT_EQ(spec.shape, it->second.shape) << spec.name;
  }
  EXPECT_EQ(found, expected.size());
}

TEST(Weights, GroupsAndLayers) {
  const auto specs = weight_specs(tiny());
  EXPECT_EQ(specs.front().group, WeightGroup::embedding);
  EXPECT_EQ(specs.front().layer, -1);
  EXPECT_EQ(specs[1].group, WeightGroup::layer);
  EXPECT_EQ(specs[1].layer, 0);
  EXPECT_EQ(specs[10].layer, 1);
  EXPECT_EQ(specs[specs.size() - 2].group, WeightGroup::final_norm);
  EXPECT_EQ(specs.back().group, WeightGroup::head);
}

TEST(Weights, SumIsTheParameterCount) {
  for (const bool biases : {false, true}) {
    ModelConfig config = tiny();
    config.attention_bias = biases;
    config.mlp_bias = biases;
    config.tie_word_embeddings = false;  // the head is stored in any case
    std::uint64_t sum = 0;
    for (const WeightSpec& spec : weight_specs(config)) {
      std::uint64_t elements = 1;
      for (const std::uint64_t extent : spec.shape) elements *= extent;
      sum += elements;
    }
    EXPECT_EQ(sum, static_cast<std::uint64_t>(parameter_count(config)));
  }
}

TEST(Weights, ManyLayersKeepOrderOfNames) {
  ModelConfig config = tiny();
  config.num_layers = 1200;
  const auto specs = weight_specs(config);
  std::set<std::string> layers;
  for (const WeightSpec& spec : specs) {
    if (spec.group == WeightGroup::layer) layers.insert(spec.name.substr(0, 12));
  }
  EXPECT_EQ(layers.size(), 1200u);
  EXPECT_EQ(*layers.rbegin(), "/layers/1199");
}

TEST(Weights, RefusesABrokenConfig) {
  ModelConfig config = tiny();
  config.num_layers = 0;
  EXPECT_THROW(weight_specs(config), ModelError);
}

}  // namespace
}  // namespace penstock::model
