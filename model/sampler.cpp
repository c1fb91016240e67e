#include "model/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "model/random.hpp"

namespace penstock::model {
namespace {

// NaN compares false with everything, so it never becomes the best.
std::int32_t argmax(std::span<const float> logits) {
  std::size_t best = 0;
  float value = -std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > value) {
      value = logits[i];
      best = i;
    }
  }
  return static_cast<std::int32_t>(best);
}

bool more_probable(const TokenProbability& a, const TokenProbability& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
}

double total(const std::vector<TokenProbability>& candidates) {
  double sum = 0;
  for (const TokenProbability& c : candidates) sum += c.probability;
  return sum;
}

// Sorts the first `count` candidates into place.
void sort_front(std::vector<TokenProbability>& candidates, std::size_t sorted, std::size_t count) {
  const auto begin = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
  const auto middle = candidates.begin() + static_cast<std::ptrdiff_t>(count);
  std::partial_sort(begin, middle, candidates.end(), more_probable);
}

// The smallest set of the most probable whose sum reaches top_p. Sorts only as far as it needs to:
// a vocabulary has 100,000 entries and a nucleus a few hundred.
void keep_nucleus(std::vector<TokenProbability>& candidates, double top_p) {
  const double wanted = top_p * total(candidates);
  double sum = 0;
  std::size_t sorted = 0;
  std::size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || sum < wanted)) {
    if (kept == sorted) {
      const std::size_t next = std::min(candidates.size(), std::max<std::size_t>(64, sorted * 8));
      sort_front(candidates, sorted, next);
      sorted = next;
    }
    sum += candidates[kept++].probability;
  }
  candidates.resize(kept);
}

}  // namespace

void distribution(std::span<const float> logits, const SamplingParams& params,
                  std::vector<TokenProbability>& out) {
  const auto largest_id = argmax(logits);
  const float largest = logits[static_cast<std::size_t>(largest_id)];
  out.clear();
  if (!(largest > -std::numeric_limits<float>::infinity()) || std::isinf(largest)) {
    out.push_back({largest_id, 1.0f});  // nothing finite to choose from, or one infinite logit
    return;
  }
  out.reserve(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float p = std::exp((logits[i] - largest) / params.temperature);
    if (p > 0.0f) out.push_back({static_cast<std::int32_t>(i), p});  // drops NaN too
  }
  const bool filtered = params.top_k > 0 || params.top_p < 1.0f || params.min_p > 0.0f;
  if (!filtered) return;
  if (params.top_k > 0) {
    const std::size_t kept = std::min(out.size(), static_cast<std::size_t>(params.top_k));
    sort_front(out, 0, kept);
    out.resize(kept);
  }
  if (params.min_p > 0.0f && params.top_p >= 1.0f) {
    std::erase_if(out, [&](const TokenProbability& c) { return c.probability < params.min_p; });
  }
  if (params.top_p < 1.0f) {
    keep_nucleus(out, params.top_p);
    // The largest is 1 by construction, so min_p needs no scaling.
    std::erase_if(out, [&](const TokenProbability& c) { return c.probability < params.min_p; });
  } else {
    std::sort(out.begin(), out.end(), more_probable);
  }
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

std::int32_t Sampler::sample(std::span<float> logits) {
  if (params_.has_penalty()) apply_penalties(logits);
  std::int32_t chosen = 0;
  if (params_.temperature <= 0.0f) {
    chosen = argmax(logits);
  } else {
    distribution(logits, params_, candidates_);
    double left = uniform(params_.seed, record_, 0, position_) * total(candidates_);
    chosen = candidates_.back().id;  // if rounding leaves a rest
    for (const TokenProbability& c : candidates_) {
      left -= c.probability;
      if (left < 0) {
        chosen = c.id;
        break;
      }
    }
  }
  ++position_;
  if (params_.has_penalty()) ++generated_[chosen];
  return chosen;
}

}  // namespace penstock::model
