#include "model/weights.hpp"

#include <fmt/format.h>

namespace penstock::model {
namespace {

// One tensor of a layer: "attn/q" here, "self_attn.q_proj" in transformers, "attn_q" in GGUF.
struct LayerPart {
  const char* name;
  const char* hf;
  const char* gguf;
  std::uint64_t out = 0;
  std::uint64_t in = 0;  // 0: a vector, the norm's weight
  bool bias = false;
};

}  // namespace

std::vector<WeightSpec> weight_specs(const ModelConfig& config) {
  validate(config);
  const auto hidden = static_cast<std::uint64_t>(config.hidden_size);
  const auto inner = static_cast<std::uint64_t>(config.intermediate_size);
  const auto vocab = static_cast<std::uint64_t>(config.vocab_size);
  const auto q = static_cast<std::uint64_t>(config.num_heads * config.head_dim);
  const auto kv = static_cast<std::uint64_t>(config.num_kv_heads * config.head_dim);
  const LayerPart parts[] = {
      {"attn/norm", "input_layernorm", "attn_norm", hidden},
      {"attn/q", "self_attn.q_proj", "attn_q", q, hidden, config.attention_bias},
      {"attn/k", "self_attn.k_proj", "attn_k", kv, hidden, config.attention_bias},
      {"attn/v", "self_attn.v_proj", "attn_v", kv, hidden, config.attention_bias},
      {"attn/o", "self_attn.o_proj", "attn_output", hidden, q, config.attention_bias},
      {"mlp/norm", "post_attention_layernorm", "ffn_norm", hidden},
      {"mlp/gate", "mlp.gate_proj", "ffn_gate", inner, hidden, config.mlp_bias},
      {"mlp/up", "mlp.up_proj", "ffn_up", inner, hidden, config.mlp_bias},
      {"mlp/down", "mlp.down_proj", "ffn_down", hidden, inner, config.mlp_bias},
  };

  std::vector<WeightSpec> specs;
  specs.push_back({"/embed/weight",
                   "model.embed_tokens.weight",
                   "token_embd.weight",
                   {vocab, hidden},
                   WeightGroup::embedding,
                   -1,
                   true});
  for (std::int64_t layer = 0; layer < config.num_layers; ++layer) {
    const auto add = [&](const LayerPart& part, const char* suffix, const char* ending,
                         std::vector<std::uint64_t> shape) {
      const bool matrix = shape.size() == 2;
      specs.push_back({fmt::format("/layers/{:04}/{}{}", layer, part.name, suffix),
                       fmt::format("model.layers.{}.{}.{}", layer, part.hf, ending),
                       fmt::format("blk.{}.{}.{}", layer, part.gguf, ending), std::move(shape),
                       WeightGroup::layer, layer, matrix});
    };
    for (const LayerPart& part : parts) {
      if (part.in == 0) {
        add(part, "", "weight", {part.out});
        continue;
      }
      add(part, "", "weight", {part.out, part.in});
      if (part.bias) add(part, "_bias", "bias", {part.out});
    }
  }
  specs.push_back({"/final/norm",
                   "model.norm.weight",
                   "output_norm.weight",
                   {hidden},
                   WeightGroup::final_norm,
                   -1,
                   false});
  specs.push_back({"/head/weight",
                   "lm_head.weight",
                   "output.weight",
                   {vocab, hidden},
                   WeightGroup::head,
                   -1,
                   true});
  return specs;
}

}  // namespace penstock::model
