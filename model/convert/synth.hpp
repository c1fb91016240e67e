#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/dtype.hpp"
#include "model/convert/convert.hpp"

namespace penstock::model {

struct SynthOptions {
  io::DType dtype = io::DType::bf16;
  std::uint64_t seed = 0;
  bool no_data = false;   // shapes only
  std::string tokenizer;  // a tokenizer.json, or any MODEL whose tokenizer is taken; empty: a
                          // byte-level one, padded to the vocabulary
  std::string created_by;
};

// "smollm2-135m", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b".
std::vector<std::string> synth_presets();

// Writes a checkpoint of random weights for a preset's name or a config.json, scaled so that
// activations stay of order one through any number of layers. Bounded memory.
void synthesize(const std::string& shape, const std::string& destination,
                const SynthOptions& options, const ConvertProgress& progress);

}  // namespace penstock::model
