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

double sum_of(std::span<const TokenProbability> candidates) {
  double sum = 0;
  for (const TokenProbability& c : candidates) sum += c.probability;
  return sum;
}

// Collects the ids that weigh at least so much of the largest, which weighs 1: with lower and lower
// limits until enough() of them are there. Filters leave few of many, so most ids are passed over a
// vector at a time.
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

// How many of the most probable it takes until reached(their sum), all where it never is. They are
// put to the front, the least probable of them last. Halves what is in question again and again,
// since sorting many would take long: of flat logits a nucleus is most of the vocabulary.
template <class Reached>
std::size_t most_until(std::vector<TokenProbability>& candidates, const Reached& reached) {
  constexpr std::ptrdiff_t kFew = 64;
  auto begin = candidates.begin();
  auto end = candidates.end();
  double before = 0;  // the sum of those in front of `begin`
  while (end - begin > kFew) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, more_probable);
    const double sum = before + sum_of({begin, middle});
    if (reached(sum)) {
      end = middle;
    } else {
      begin = middle;
      before = sum;
    }
  }
  std::sort(begin, end, more_probable);
  while (begin != end && !reached(before)) before += (begin++)->probability;
  return static_cast<std::size_t>(begin - candidates.begin());
}

// Ids lie end to end, each as long as its weight: the one at a point. Sums a piece at a time, so
// that few are looked at one by one.
std::int32_t draw_by_id(std::span<const float> weights, double point) {
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
      if (point < 0) return static_cast<std::int32_t>(begin + i);
    }
  }
  // Rounding left a rest.
  std::size_t last = weights.size() - 1;
  while (last > 0 && weights[last] == 0) --last;
  return static_cast<std::int32_t>(last);
}

// The same for candidates that lie in the order of their probability.
std::int32_t draw_by_rank(std::vector<TokenProbability>& candidates, double point) {
  const std::size_t count = most_until(candidates, [point](double sum) { return sum > point; });
  return candidates[count - 1].id;
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
    const double wanted = params.top_p * out.sum;
    const std::size_t count = most_until(out.kept, [wanted](double sum) { return sum >= wanted; });
    out.kept.resize(std::max<std::size_t>(count, 1));
  }
  // The largest is 1 by construction, so min_p needs no scaling.
  std::erase_if(out.kept, [&](const TokenProbability& c) { return c.probability < params.min_p; });
  out.sum = sum_of(out.kept);
}

// Filled, since memory that was never written to is not there yet.
SamplerScratch::SamplerScratch(std::size_t vocab_size) : logits(vocab_size) {
  distribution.weights.resize(vocab_size);
  distribution.kept.resize(vocab_size);
}

std::size_t SamplerScratch::bytes(std::size_t vocab_size) {
  return vocab_size * (2 * sizeof(float) + sizeof(TokenProbability));
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
    chosen = from.kept.empty() ? draw_by_id(from.weights, point) : draw_by_rank(from.kept, point);
  }
  ++position_;
  if (params_.has_penalty()) ++generated_[chosen];
  return chosen;
}

}  // namespace penstock::model
