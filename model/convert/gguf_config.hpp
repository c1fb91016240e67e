#pragma once

#include <span>
#include <string>

#include "io/gguf.hpp"
#include "model/config.hpp"

namespace penstock::model {

// The config of a llama-architecture GGUF from its metadata (llama.*, tokenizer.ggml.*) and the
// shapes of its tensors. Keys: github.com/ggml-org/ggml, docs/gguf.md. Reads the tensor
// rope_freqs.weight if there is one. Throws ModelError and io::FileError that name the key.
ModelConfig gguf_config(io::GgufFile& file);

// The metadata that gguf_config understands, as a JSON object, for people.
std::string gguf_config_text(const io::GgufFile& file);

// llama.cpp keeps rope scaling "llama3" as the divisors [head_dim / 2] of the frequencies. Finds
// the parameters that give them: the factor is the largest divisor, the others are those of every
// published model (low 1, high 4, 8192 positions). Throws ModelError if these do not give them.
RopeScaling rope_scaling_of(std::span<const float> divisors, double rope_theta);

}  // namespace penstock::model
