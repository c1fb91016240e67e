#include "model/convert/synth_presets.hpp"

#include <nlohmann/json.hpp>
#include <vector>

#include "model/convert/synth.hpp"

namespace penstock::model {
namespace {

using nlohmann::ordered_json;

ordered_json smollm2_135m() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", 576},
          {"intermediate_size", 1536},
          {"num_hidden_layers", 30},
          {"num_attention_heads", 9},
          {"num_key_value_heads", 3},
          {"vocab_size", 49152},
          {"max_position_embeddings", 8192},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 100000.0},
          {"tie_word_embeddings", true},
          {"hidden_act", "silu"},
          {"bos_token_id", 0},
          {"eos_token_id", 0}};
}

// The three sizes of Llama 3.1 differ in five numbers.
ordered_json llama_3_1(int hidden, int intermediate, int layers, int heads) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", hidden},
          {"intermediate_size", intermediate},
          {"num_hidden_layers", layers},
          {"num_attention_heads", heads},
          {"num_key_value_heads", 8},
          {"vocab_size", 128256},
          {"max_position_embeddings", 131072},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500000.0},
          {"rope_scaling",
           {{"rope_type", "llama3"},
            {"factor", 8.0},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 4.0},
            {"original_max_position_embeddings", 8192}}},
          {"tie_word_embeddings", false},
          {"hidden_act", "silu"},
          {"bos_token_id", 128000},
          {"eos_token_id", 128001}};
}

}  // namespace

std::vector<std::string> synth_presets() {
  return {"smollm2-135m", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b"};
}

std::optional<std::string> preset_config(std::string_view name) {
  if (name == "smollm2-135m") return smollm2_135m().dump(2);
  if (name == "llama-3.1-8b") return llama_3_1(4096, 14336, 32, 32).dump(2);
  if (name == "llama-3.1-70b") return llama_3_1(8192, 28672, 80, 64).dump(2);
  if (name == "llama-3.1-405b") return llama_3_1(16384, 53248, 126, 128).dump(2);
  return std::nullopt;
}

}  // namespace penstock::model
