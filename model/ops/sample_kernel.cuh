#pragma once

// The code of a thread block that samples one row; see simt_cuda.cuh for what is included first.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "model/ops/sample.hpp"

namespace penstock::model {

using Mass = unsigned long long;  // a probability, or a sum of some, in multiples of 2^-44

__host__ __device__ inline Mass mass_of(float p) { return static_cast<Mass>(p * 0x1p44f); }

// The 53 random bits of uniform() in model/random.hpp.
__host__ __device__ inline std::uint64_t random_bits(std::uint64_t seed, std::uint64_t record,
                                                     std::uint32_t sample, std::uint32_t position) {
  std::uint32_t c0 = position, c1 = sample;
  std::uint32_t c2 = static_cast<std::uint32_t>(record);
  std::uint32_t c3 = static_cast<std::uint32_t>(record >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(seed);
  std::uint32_t k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * c0;
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(product1);
    c2 = static_cast<std::uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (std::uint64_t{c0} << 32 | c1) >> 11;
}

// floor(bits / 2^53 * total) for bits < 2^53.
__host__ __device__ inline Mass scaled(std::uint64_t bits, Mass total) {
  const std::uint64_t low = (bits & 0xFFFFFFFFu) * (total & 0xFFFFFFFFu);
  const std::uint64_t cross0 = (bits >> 32) * (total & 0xFFFFFFFFu) + (low >> 32);
  const std::uint64_t cross1 = (bits & 0xFFFFFFFFu) * (total >> 32) + (cross0 & 0xFFFFFFFFu);
  const std::uint64_t high = (bits >> 32) * (total >> 32) + (cross0 >> 32) + (cross1 >> 32);
  return high << 11 | (cross1 << 32 | (low & 0xFFFFFFFFu)) >> 53;
}

// The tokens that filters leave: those with p > key's and, in the order of their ids, the first
// `ties` of those with just this p. p is positive, so that its bits rise with it.
struct Kept {
  std::uint32_t key = 0;
  std::uint32_t ties = 0;
};
inline constexpr std::uint32_t kAllTies = 0xFFFFFFFFu;
__host__ __device__ inline Kept fewer(const Kept& a, const Kept& b) {
  if (a.key != b.key) return a.key > b.key ? a : b;
  return a.ties < b.ties ? a : b;
}

class RowSampler {
 public:
  static constexpr unsigned kMostWarps = 32;
  struct Shared {
    Mass sums[kMostWarps][8];
    float values[kMostWarps];
    std::int32_t ids[kMostWarps];
    std::int32_t found;
  };

  __device__ RowSampler(const Sample& args, unsigned row)
      : vocab_(static_cast<std::uint32_t>(args.vocab)),
        row_(args.rows[row]),
        logits_(args.logits + row * args.vocab),
        work_(args.work + row * args.vocab),
        shared_(*reinterpret_cast<Shared*>(simt::shared_memory())),
        lane_(simt::thread() % 32),
        warp_(simt::thread() / 32),
        warps_(simt::threads() / 32) {}

  __device__ std::int32_t run() {
    if (row_.penalties != nullptr) apply_penalties();
    const float* from = row_.penalties != nullptr ? work_ : logits_;
    float largest;
    std::int32_t chosen = argmax(from, largest);
    const bool finite = largest > -kInfinity && largest < kInfinity;
    if (row_.params.temperature > 0.0f && finite) {
      weigh(from, largest);
      chosen = draw();
    }
    if (row_.penalties != nullptr) count_token(chosen);
    return chosen;
  }

 private:
  static constexpr float kInfinity = __builtin_huge_valf();

  __device__ PenaltyEntry* entries() const {
    return reinterpret_cast<PenaltyEntry*>(row_.penalties + 1);
  }

  __device__ void apply_penalties() {
    for (std::uint32_t i = simt::thread(); i < vocab_; i += simt::threads()) work_[i] = logits_[i];
    simt::barrier();
    const SamplingParams& params = row_.params;
    const std::uint32_t count = row_.penalties->count;
    for (std::uint32_t i = simt::thread(); i < count; i += simt::threads()) {
      const PenaltyEntry entry = entries()[i];
      if (entry.id < 0 || static_cast<std::uint32_t>(entry.id) >= vocab_) continue;
      float logit = work_[entry.id];
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
      if (entry.generated > 0) {
        logit -= params.presence_penalty;
        logit -= params.frequency_penalty * static_cast<float>(entry.generated);
      }
      work_[entry.id] = logit;
    }
    simt::barrier();
  }

  __device__ void count_token(std::int32_t id) {
    if (simt::thread() == 0) shared_.found = 0;
    simt::barrier();
    const std::uint32_t count = row_.penalties->count;
    for (std::uint32_t i = simt::thread(); i < count; i += simt::threads()) {
      if (entries()[i].id != id) continue;
      ++entries()[i].generated;
      shared_.found = 1;
    }
    simt::barrier();
    if (simt::thread() == 0 && shared_.found == 0 && count < row_.penalties->capacity) {
      entries()[count] = {id, 1};
      row_.penalties->count = count + 1;
    }
  }

  // The largest and the lowest id that has it; NaN never is. The same for all threads.
  __device__ std::int32_t argmax(const float* from, float& largest) {
    float value = -kInfinity;
    std::int32_t id = 0;
    for (std::uint32_t i = simt::thread(); i < vocab_; i += simt::threads()) {
      if (from[i] > value) {
        value = from[i];
        id = static_cast<std::int32_t>(i);
      }
    }
    for (unsigned mask = 16; mask > 0; mask /= 2) {
      const float other = simt::shuffle_xor(value, mask);
      const std::int32_t other_id = simt::shuffle_xor(id, mask);
      take_better(other, other_id, value, id);
    }
    if (lane_ == 0) {
      shared_.values[warp_] = value;
      shared_.ids[warp_] = id;
    }
    simt::barrier();
    for (unsigned w = 0; w < warps_; ++w) {
      take_better(shared_.values[w], shared_.ids[w], value, id);
    }
    simt::barrier();
    largest = value;
    return id;
  }

  __device__ static void take_better(float other, std::int32_t other_id, float& value,
                                     std::int32_t& id) {
    if (other > value || (other == value && other_id < id)) {
      value = other;
      id = other_id;
    }
  }

  // Sums of all threads, in place; the same for all threads.
  template <unsigned kCount>
  __device__ void block_sums(Mass (&sums)[kCount]) {
    static_assert(kCount <= 8);
#pragma unroll
    for (unsigned i = 0; i < kCount; ++i) {
#pragma unroll
      for (unsigned mask = 16; mask > 0; mask /= 2) sums[i] += simt::shuffle_xor(sums[i], mask);
      if (lane_ == 0) shared_.sums[warp_][i] = sums[i];
    }
    simt::barrier();
#pragma unroll
    for (unsigned i = 0; i < kCount; ++i) {
      sums[i] = 0;
      for (unsigned w = 0; w < warps_; ++w) sums[i] += shared_.sums[w][i];
    }
    simt::barrier();
  }

  __device__ static std::uint32_t key_of(float p) {
    union {
      float value;
      std::uint32_t bits;
    } both;
    both.value = p;
    return both.bits;
  }
  __device__ static float value_of(std::uint32_t key) {
    union {
      std::uint32_t bits;
      float value;
    } both;
    both.bits = key;
    return both.value;
  }

  // work = probabilities, up to a factor: 1 for the largest, 0 for what is none.
  __device__ void weigh(const float* from, float largest) {
    Mass sums[2] = {0, 0};
    for (std::uint32_t i = simt::thread(); i < vocab_; i += simt::threads()) {
      float p = expf((from[i] - largest) / row_.params.temperature);
      if (!(p > 0.0f)) p = 0.0f;
      work_[i] = p;
      sums[0] += p > 0.0f ? 1 : 0;
      sums[1] += mass_of(p);
    }
    block_sums(sums);  // and all threads see work_
    positives_ = static_cast<std::uint32_t>(sums[0]);
    total_ = sums[1];
  }

  // Of the tokens sorted by falling p, the p at which the running sum of their weights first
  // exceeds `target`, which is less than all weights together; `above`: the sum of the tokens
  // before those with this p. Weights are masses, or 1 each (kCounts).
  template <bool kCounts>
  __device__ std::uint32_t descend(Mass target, Mass& above) {
    above = 0;
    std::uint32_t key = 0;
    // Two bits of the key at a time: p <= 1 has none above the 30 lower ones.
    for (int shift = 28; shift >= 0; shift -= 2) {
      Mass sums[3] = {0, 0, 0};  // of the digits 3, 2, 1
      for (std::uint32_t i = simt::thread(); i < vocab_; i += simt::threads()) {
        const float p = work_[i];
        const std::uint32_t bits = key_of(p);
        if ((bits ^ key) >> shift > 3 || bits == 0) continue;  // differs further up
        const std::uint32_t digit = bits >> shift & 3;
        const Mass weight = kCounts ? 1 : mass_of(p);
        sums[0] += digit == 3 ? weight : 0;
        sums[1] += digit == 2 ? weight : 0;
        sums[2] += digit == 1 ? weight : 0;
      }
      block_sums(sums);
      std::uint32_t digit = 3;
#pragma unroll
      for (unsigned i = 0; i < 3; ++i) {
        if (target < above + sums[i]) break;
        above += sums[i];
        --digit;
      }
      key |= digit << shift;
    }
    return key;
  }

  // The mass of the kept tokens; ties becomes no more than there are.
  __device__ Mass mass_of_kept(Kept& kept) {
    Mass sums[2] = {0, 0};
    for (std::uint32_t i = simt::thread(); i < vocab_; i += simt::threads()) {
      const std::uint32_t bits = key_of(work_[i]);
      sums[0] += bits > kept.key ? mass_of(work_[i]) : 0;
      sums[1] += bits == kept.key ? 1 : 0;
    }
    block_sums(sums);
    if (sums[1] < kept.ties) kept.ties = static_cast<std::uint32_t>(sums[1]);
    return sums[0] + kept.ties * mass_of(value_of(kept.key));
  }

  __device__ std::int32_t draw() {
    const SamplingParams& params = row_.params;
    const std::uint64_t bits = random_bits(params.seed, row_.record, 0, row_.position);
    const bool filtered = params.top_k > 0 || params.top_p < 1.0f || params.min_p > 0.0f;
    if (!filtered) {
      return find_in_order(scaled(bits, total_),
                           [this](std::uint32_t i) { return mass_of(work_[i]); });
    }
    Kept kept;  // all
    Mass mass = total_;
    if (params.top_k > 0 && static_cast<std::uint32_t>(params.top_k) < positives_) {
      Mass above;
      const auto wanted = static_cast<Mass>(params.top_k);
      kept.key = descend<true>(wanted - 1, above);
      kept.ties = static_cast<std::uint32_t>(wanted - above);
      mass = mass_of_kept(kept);
    }
    if (params.top_p < 1.0f) {
      const double share = ceil(static_cast<double>(params.top_p) * static_cast<double>(mass));
      Mass wanted = share < 1.0 ? 1 : static_cast<Mass>(share);
      if (wanted > mass) wanted = mass;
      Mass above;
      Kept nucleus;
      nucleus.key = descend<false>(wanted - 1, above);
      nucleus.ties = ties_until(wanted - 1 - above, nucleus.key);
      kept = fewer(kept, nucleus);
    }
    if (params.min_p > 0.0f) kept = fewer(kept, Kept{key_of(params.min_p), kAllTies});
    mass = mass_of_kept(kept);
    const Mass target = scaled(bits, mass);
    Mass above;
    const std::uint32_t key = descend<false>(target, above);
    const Mass tie = (target - above) / mass_of(value_of(key));
    return find_in_order(
        tie, [this, key](std::uint32_t i) -> Mass { return key_of(work_[i]) == key ? 1 : 0; });
  }

  // How many tokens of this p it takes until their mass exceeds `target`.
  __device__ static std::uint32_t ties_until(Mass target, std::uint32_t key) {
    return static_cast<std::uint32_t>(target / mass_of(value_of(key)) + 1);
  }

  // The lowest id with which the running sum of the weights, by id, exceeds `target`, which is less
  // than all weights together.
  template <class Weight>
  __device__ std::int32_t find_in_order(Mass target, Weight weight) {
    const std::uint32_t segment = (vocab_ + simt::threads() - 1) / simt::threads() * 32;
    const std::uint32_t begin = warp_ * segment;
    const std::uint32_t end = begin + segment < vocab_ ? begin + segment : vocab_;
    Mass sum = 0;
    for (std::uint32_t i = begin + lane_; i < end; i += 32) sum += weight(i);
#pragma unroll
    for (unsigned mask = 16; mask > 0; mask /= 2) sum += simt::shuffle_xor(sum, mask);
    if (lane_ == 0) shared_.sums[warp_][0] = sum;
    simt::barrier();
    unsigned chosen = 0;
    while (chosen + 1 < warps_ && target >= shared_.sums[chosen][0]) {
      target -= shared_.sums[chosen++][0];
    }
    if (warp_ == chosen) find_in_segment(begin, end, target, weight);
    simt::barrier();
    const std::int32_t found = shared_.found;
    simt::barrier();
    return found;
  }

  // By one warp.
  template <class Weight>
  __device__ void find_in_segment(std::uint32_t begin, std::uint32_t end, Mass target,
                                  Weight weight) {
    for (std::uint32_t base = begin; base < end; base += 32) {
      const std::uint32_t i = base + lane_;
      const Mass mine = i < end ? weight(i) : 0;
      Mass running = mine;
#pragma unroll
      for (unsigned delta = 1; delta < 32; delta *= 2) {
        const Mass before = simt::shuffle_up(running, delta);
        if (lane_ >= delta) running += before;
      }
      const Mass all = simt::shuffle(running, 31);
      if (target < all) {
        if (running > target && running - mine <= target) {
          shared_.found = static_cast<std::int32_t>(i);
        }
        return;
      }
      target -= all;
    }
  }

  std::uint32_t vocab_;
  SampleRow row_;
  const float* logits_;
  float* work_;
  Shared& shared_;
  unsigned lane_;
  unsigned warp_;
  unsigned warps_;
  std::uint32_t positives_ = 0;
  Mass total_ = 0;
};

__device__ inline void sample_rows(const Sample& args) {
  const unsigned row = simt::block_x();
  if (row >= *args.count) return;
  const std::int32_t id = RowSampler(args, row).run();
  if (simt::thread() == 0) args.ids[row] = id;
}

}  // namespace penstock::model
