#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

// What sampling on a CPU does with each element of one row of logits [vocab], on the calling
// thread.
namespace penstock::model {

struct TokenProbability {
  std::int32_t id = 0;
  float probability = 0;  // up to a common factor
};

// The largest logit's id, the lowest on a tie; NaN counts as minus infinity. 0 where nothing is
// more than that.
std::size_t argmax(std::span<const float> logits);

// exp((logit - largest) / temperature) of each, 0 for NaN, in `weights` of the same size. Requires
// temperature > 0 and `largest` finite.
void softmax_weights(std::span<const float> logits, float largest, float temperature,
                     std::span<float> weights);

double sum_weights(std::span<const float> weights);

// Appends what weighs `least` or more, in the order of ids.
void append_at_least(std::span<const float> weights, float least,
                     std::vector<TokenProbability>& out);

}  // namespace penstock::model
