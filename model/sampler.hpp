#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace penstock::model {

// How the next token is chosen. Names and meanings are those of vLLM and transformers.
struct SamplingParams {
  float temperature = 0.0f;         // 0: greedy (argmax, lowest id on a tie)
  std::int32_t top_k = 0;           // 0: off
  float top_p = 1.0f;               // 1: off
  float min_p = 0.0f;               // 0: off
  float repetition_penalty = 1.0f;  // 1: off; over prompt and answer
  float presence_penalty = 0.0f;    // over the answer
  float frequency_penalty = 0.0f;   // over the answer
  std::uint64_t seed = 0;
};

// Uniform in [0, 1) from a counter-based generator (Philox 4x32-10, Salmon et al. 2011), keyed by
// (seed, record, sample, position): the same on every layout.
double uniform(std::uint64_t seed, std::uint64_t record, std::uint32_t sample,
               std::uint32_t position);

// One sequence's sampling: its parameters and the token counts the penalties need.
class Sampler {
 public:
  // `tokens`: prompt, then what was generated before an eviction; the first `prompt_tokens` of
  // them are the prompt.
  Sampler(const SamplingParams& params, std::uint64_t record, std::span<const std::int32_t> tokens,
          std::size_t prompt_tokens);

  // Chooses the next token from logits [vocab] and counts it. `logits` is scratch: it is changed.
  // Order: penalties, temperature, top-k, top-p, min-p, draw.
  std::int32_t sample(std::span<float> logits);

 private:
  SamplingParams params_;
  std::uint64_t record_ = 0;
  std::uint32_t position_ = 0;  // tokens generated so far
  struct Counts {
    bool in_prompt = false;
    std::uint32_t generated = 0;
  };
  std::unordered_map<std::int32_t, Counts> counts_;  // kept only when a penalty is on
};

}  // namespace penstock::model
