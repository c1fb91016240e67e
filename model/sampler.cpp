#include "model/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/random.hpp"

namespace penstock::model {
namespace {

// What weighs less is 0.
constexpr float kLeastWeight = std::numeric_limits<float>::denorm_min();

bool more_probable(const TokenProbability& a, const TokenProbability& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
}

double sum_of(const std::vector<TokenProbability>& candidates) {
  double sum = 0;
  for (const TokenProbability& c : candidates) sum += c.probability;
  return sum;
}

// The most probable: all that weigh so much of the largest, which weighs 1, less and less of it
// until they are enough. Filters leave few of many, so most ids are passed over a vector at a time.
template <class Enough>
void keep_until(std::span<const float> weights, const Enough& enough,
                std::vector<TokenProbability>& kept) {
  for (const float least :
       {0x1p-4f, 0x1p-7f, 0x1p-10f, 0x1p-13f, 0x1p-16f, 0x1p-24f, kLeastWeight}) {
    kept.clear();
    append_at_least(weights, least, kept);
    if (enough()) return;
  }
}

// The `count` most probable, in no order.
void keep_top(std::span<const float> weights, std::size_t count,
              std::vector<TokenProbability>& kept) {
  keep_until(
      weights, [&] { return kept.size() >= count; }, kept);
  if (kept.size() <= count) return;
  const auto end = kept.begin() + static_cast<std::ptrdiff_t>(count);
  std::nth_element(kept.begin(), end, kept.end(), more_probable);
  kept.resize(count);
}

// Of `kept` the smallest set of the most probable whose sum is `wanted`, sorted. Sorts only as far
// as it needs to.
void cut_nucleus(std::vector<TokenProbability>& kept, double wanted) {
  double sum = 0;
  std::size_t sorted = 0;
  std::size_t count = 0;
  while (count < kept.size() && (count == 0 || sum < wanted)) {
    if (count == sorted) {
      const auto begin = kept.begin() + static_cast<std::ptrdiff_t>(sorted);
      sorted = std::min(kept.size(), std::max<std::size_t>(64, sorted * 4));
      const auto end = kept.begin() + static_cast<std::ptrdiff_t>(sorted);
      std::nth_element(begin, end, kept.end(), more_probable);
      std::sort(begin, end, more_probable);
    }
    sum += kept[count++].probability;
  }
  kept.resize(count);
}

// Ids lie end to end, each as long as its weight: the one at a point. Sums a piece at a time, so
// that few are looked at one by one.
std::size_t draw(std::span<const float> weights, double point) {
  constexpr std::size_t kPiece = 512;
  for (std::size_t begin = 0; begin < weights.size(); begin += kPiece) {
    const auto piece = weights.subspan(begin, std::min(kPiece, weights.size() - begin));
    const double sum = sum_weights(piece);
    if (point >= sum) {
      point -= sum;
      continue;
    }
    for (std::size_t i = 0; i < piece.size(); ++i) {
      point -= piece[i];
      if (point < 0) return begin + i;
    }
  }
  // Rounding left a rest.
  std::size_t last = weights.size() - 1;
  while (last > 0 && weights[last] == 0) --last;
  return last;
}

std::int32_t draw(const std::vector<TokenProbability>& kept, double point) {
  for (const TokenProbability& c : kept) {
    point -= c.probability;
    if (point < 0) return c.id;
  }
  return kept.back().id;  // rounding left a rest
}

}  // namespace

void distribution(std::span<const float> logits, const SamplingParams& params, Distribution& out) {
  const std::size_t largest_id = argmax(logits);
  const float largest = logits[largest_id];
  out.kept.clear();
  if (!std::isfinite(largest)) {
    // Nothing finite to choose from, or one infinite logit.
    out.kept.push_back({static_cast<std::int32_t>(largest_id), 1.0f});
    out.sum = 1;
    return;
  }
  out.weights.resize(logits.size());
  softmax_weights(logits, largest, params.temperature, out.weights);
  out.sum = sum_weights(out.weights);
  if (!params.has_filter()) return;
  if (params.top_k > 0) {
    keep_top(out.weights, static_cast<std::size_t>(params.top_k), out.kept);
    out.sum = sum_of(out.kept);
  } else if (params.top_p < 1.0f) {
    keep_until(
        out.weights, [&] { return sum_of(out.kept) >= params.top_p * out.sum; }, out.kept);
  } else {
    append_at_least(out.weights, params.min_p, out.kept);
  }
  if (params.top_p < 1.0f) {
    cut_nucleus(out.kept, params.top_p * out.sum);
  } else {
    std::sort(out.kept.begin(), out.kept.end(), more_probable);
  }
  // The largest is 1 by construction, so min_p needs no scaling.
  std::erase_if(out.kept, [&](const TokenProbability& c) { return c.probability < params.min_p; });
  out.sum = sum_of(out.kept);
}

Sampler::Sampler(const SamplingParams& params, std::uint64_t record,
                 std::span<const std::int32_t> tokens, std::size_t prompt_tokens)
    : params_(params),
      record_(record),
      position_(static_cast<std::uint32_t>(tokens.size() - prompt_tokens)) {
  if (!params_.has_penalty()) return;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    std::uint32_t& generated = generated_[tokens[i]];
    if (i >= prompt_tokens) ++generated;
  }
}

// Repetition: Keskar et al. 2019 (CTRL), as transformers' RepetitionPenaltyLogitsProcessor;
// presence and frequency: as the OpenAI API documents them.
void Sampler::apply_penalties(std::span<float> logits) const {
  for (const auto& [id, generated] : generated_) {
    if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) continue;
    float& logit = logits[static_cast<std::size_t>(id)];
    logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
    if (generated > 0) {
      logit -= params_.presence_penalty;
      logit -= params_.frequency_penalty * static_cast<float>(generated);
    }
  }
}

std::int32_t Sampler::sample(std::span<const float> logits, SamplerScratch& scratch) {
  if (params_.has_penalty()) {
    scratch.logits.assign(logits.begin(), logits.end());
    apply_penalties(scratch.logits);
    logits = scratch.logits;
  }
  std::int32_t chosen = 0;
  if (params_.temperature <= 0.0f) {
    chosen = static_cast<std::int32_t>(argmax(logits));
  } else {
    Distribution& from = scratch.distribution;
    distribution(logits, params_, from);
    const double point = uniform(params_.seed, record_, 0, position_) * from.sum;
    chosen = from.kept.empty() ? static_cast<std::int32_t>(draw(from.weights, point))
                               : draw(from.kept, point);
  }
  ++position_;
  if (params_.has_penalty()) ++generated_[chosen];
  return chosen;
}

}  // namespace penstock::model
