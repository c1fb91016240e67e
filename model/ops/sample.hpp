#pragma once

#include <cstddef>
#include <cstdint>

#include "model/ops/device.hpp"
#include "model/sampler.hpp"

namespace penstock::model {

// The sampler of model/sampler.hpp on a GPU: the same filters in the same order, the same random
// numbers. Probabilities are summed as whole multiples of 2^-44, so that no sum depends on its
// order; the CPU sums them in f64. Ids are the same but where the random number falls within
// rounding of a border between two tokens.

// A token that a sequence's penalties count: `generated` times in the answer, 0: in the prompt
// only.
struct PenaltyEntry {
  std::int32_t id = 0;
  std::uint32_t generated = 0;
};

// What penalties know of one sequence, kept in the GPU's memory from step to step: this header and
// `capacity` entries behind it, each id once. sample() counts what it chooses; a table that is full
// takes no new ids, so capacity is the smaller of vocabulary and context.
struct PenaltyTable {
  std::uint32_t count = 0;
  std::uint32_t capacity = 0;
};
constexpr std::size_t penalty_table_bytes(std::size_t capacity) {
  return sizeof(PenaltyTable) + capacity * sizeof(PenaltyEntry);
}

// A sequence that samples.
struct SampleRow {
  SamplingParams params;
  std::uint64_t record = 0;
  std::uint32_t position = 0;         // tokens generated so far
  PenaltyTable* penalties = nullptr;  // GPU memory; null when the sequence has none
};

// Sums of so many masses fit in 64 bits.
inline constexpr std::size_t kMostSampleVocab = std::size_t{1} << 18;

struct Sample {
  const SampleRow* rows = nullptr;
  const std::uint32_t* count = nullptr;  // how many rows there are
  std::size_t most = 0;                  // rows that the launch is made for
  std::size_t vocab = 0;                 // at most kMostSampleVocab
  const float* logits = nullptr;         // [most, vocab]; stays as it is
  float* work = nullptr;                 // [most, vocab]
  std::int32_t* ids = nullptr;           // [most]
};

// Throws ModelError for a larger vocabulary.
void sample(const Cuda& device, const Sample& args);

}  // namespace penstock::model
