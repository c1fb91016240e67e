#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "model/ops/logit_row.hpp"

namespace penstock::model {

// How the next token is chosen. Names and meanings are those of transformers and vLLM.
struct SamplingParams {
  float temperature = 0.0f;         // 0: greedy (argmax, lowest id on a tie)
  std::int32_t top_k = 0;           // 0: off
  float top_p = 1.0f;               // 1: off
  float min_p = 0.0f;               // 0: off
  float repetition_penalty = 1.0f;  // 1: off; over prompt and answer
  float presence_penalty = 0.0f;    // over the answer
  float frequency_penalty = 0.0f;   // over the answer
  std::uint64_t seed = 0;

  bool has_filter() const { return top_k > 0 || top_p < 1.0f || min_p > 0.0f; }
  bool has_penalty() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
};

// What temperature, top-k, top-p and min-p leave of a row of logits.
struct Distribution {
  // [vocab], by id, before the filters: probabilities up to a common factor.
  std::vector<float> weights;
  // What the filters leave, in no order. Empty where none is on: then all of `weights` counts.
  std::vector<TokenProbability> kept;
  double sum = 0;  // of what counts
};

// Temperature, top-k, top-p and min-p, applied in this order; each filter works on the renormalized
// outcome of the one before, as the LogitsWarpers of transformers do. At least one id remains; NaN
// counts as minus infinity. Requires temperature > 0 and min_p <= 1. The result is in `out`.
void distribution(std::span<const float> logits, const SamplingParams& params, Distribution& out);

// What sampling a row needs, whichever sequence it is of: kept for its memory. Of one thread.
struct SamplerScratch {
  // For rows of `vocab_size`: it takes all its memory at once, and grows no more.
  explicit SamplerScratch(std::size_t vocab_size);
  static std::size_t bytes(std::size_t vocab_size);

  std::vector<float> logits;  // [vocab], with penalties
  Distribution distribution;
};

// One sequence's sampling: its parameters and the token counts the penalties need.
class Sampler {
 public:
  // `tokens`: prompt, then what was generated before an eviction; the first `prompt_tokens` of
  // them are the prompt.
  Sampler(const SamplingParams& params, std::uint64_t record, std::span<const std::int32_t> tokens,
          std::size_t prompt_tokens);

  // Chooses the next token from logits [vocab] and counts it.
  std::int32_t sample(std::span<const float> logits, SamplerScratch& scratch);

 private:
  void apply_penalties(std::span<float> logits) const;

  SamplingParams params_;
  std::uint64_t record_ = 0;
  std::uint32_t position_ = 0;  // tokens generated so far
  // How often each token of prompt and answer was generated (0: in the prompt only). Kept only when
  // a penalty is on.
  std::unordered_map<std::int32_t, std::uint32_t> generated_;
};

}  // namespace penstock::model
