#pragma once

#include <cstdint>
#include <span>

#include "model/config.hpp"
#include "model/weights.hpp"

namespace penstock::model {

// Values first, first + 1, … of stream `key`, each from its own counter: in any order, on any
// machine, the same. Bell-shaped (the sum of four uniform 16-bit numbers), mean 0, standard
// deviation `scale`. Integer hash: SplitMix64 (Steele, Lea, Flood 2014).
void fill_random(std::uint64_t key, std::uint64_t first, float scale, std::span<float> out);

// The stream of one tensor. A tied head has the embedding's.
std::uint64_t stream_key(std::uint64_t seed, const ModelConfig& config, const WeightSpec& spec);

// The standard deviation of one tensor that keeps activations of order one: 1/sqrt(fan_in), for
// what is added to the residual stream (o, down) divided by sqrt(2 * layers); the head four times
// that, so that a few tokens are clearly likelier than the rest. 0 for norms, which are 1.
float weight_scale(const ModelConfig& config, const WeightSpec& spec);

}  // namespace penstock::model
