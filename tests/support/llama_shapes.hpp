#pragma once

#include <cstdint>

#include "model/config.hpp"

// Shapes of the Llama family, by the config.json of each on the Hugging Face hub.
namespace penstock::tests {

inline model::ModelConfig llama_shape(std::int64_t hidden, std::int64_t inner, std::int64_t layers,
                                      std::int64_t heads, std::int64_t kv_heads,
                                      std::int64_t vocab = 128256) {
  model::ModelConfig c;
  c.hidden_size = hidden;
  c.intermediate_size = inner;
  c.num_layers = layers;
  c.num_heads = heads;
  c.num_kv_heads = kv_heads;
  c.head_dim = hidden / heads;
  c.vocab_size = vocab;
  c.max_position = 131072;
  return c;
}

// For tests that compute, or that reckon by hand.
inline model::ModelConfig tiny_llama() {
  model::ModelConfig c = llama_shape(64, 128, 4, 2, 1, 256);
  c.max_position = 4096;
  return c;
}

inline model::ModelConfig llama_1b() { return llama_shape(2048, 8192, 16, 32, 8); }
inline model::ModelConfig llama_8b() { return llama_shape(4096, 14336, 32, 32, 8); }
inline model::ModelConfig llama_70b() { return llama_shape(8192, 28672, 80, 64, 8); }
inline model::ModelConfig llama_405b() { return llama_shape(16384, 53248, 126, 128, 8); }

}  // namespace penstock::tests
