#include "model/sampler.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "model/random.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;
using testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();

// As hashed() and logits() of make_sampler_reference.py.
std::vector<float> formula_logits(std::uint32_t seed, std::uint32_t vocab, double scale) {
  std::vector<float> logits;
  for (std::uint32_t i = 0; i < vocab; ++i) {
    std::uint32_t x = seed * 0x9E3779B9u + i * 0x85EBCA6Bu + 1;
    x ^= x >> 16;
    x *= 0x85EBCA6Bu;
    x ^= x >> 13;
    x *= 0xC2B2AE35u;
    x ^= x >> 16;
    const double whole = static_cast<double>(x >> 8) - 0x1.0p23;
    logits.push_back(static_cast<float>(whole * (scale / 0x1.0p23)));
  }
  return logits;
}

std::vector<float> logits_of(const json& entry) {
  return formula_logits(entry.at("seed"), entry.at("vocab"), entry.at("scale"));
}

// The cases of one part of the file. By value: name it before a loop.
json reference(const char* part) {
  std::ifstream file(PENSTOCK_SOURCE_DIR "/tests/reference/data/sampler.json");
  return json::parse(file).at(part);
}

SamplingParams params_of(const json& entry) {
  SamplingParams p;
  p.temperature = entry.value("temperature", 1.0f);
  p.top_k = entry.value("top_k", 0);
  p.top_p = entry.value("top_p", 1.0f);
  p.min_p = entry.value("min_p", 0.0f);
  p.repetition_penalty = entry.value("repetition_penalty", 1.0f);
  return p;
}

std::vector<TokenProbability> distribution_of(const std::vector<float>& logits,
                                              const SamplingParams& params) {
  Distribution out{{5.0f, 5.0f}, {{7, 7.0f}}, 9};  // what a call before may have left
  distribution(logits, params, out);
  if (out.kept.empty()) {
    for (std::size_t i = 0; i < out.weights.size(); ++i) {
      if (out.weights[i] > 0) out.kept.push_back({static_cast<std::int32_t>(i), out.weights[i]});
    }
  }
  double sum = 0;
  for (const TokenProbability& c : out.kept) sum += c.probability;
  EXPECT_NEAR(out.sum, sum, 1e-12 * sum);
  if (params.has_filter()) {
    std::sort(out.kept.begin(), out.kept.end(), [](const auto& a, const auto& b) {
      return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
    });
  }
  return out.kept;
}

std::vector<std::int32_t> ids_of(const std::vector<float>& logits, const SamplingParams& params) {
  std::vector<std::int32_t> ids;
  for (const TokenProbability& c : distribution_of(logits, params)) ids.push_back(c.id);
  return ids;
}

SamplingParams at_temperature(float temperature) {
  SamplingParams p;
  p.temperature = temperature;
  return p;
}

TEST(Distribution, IsThatOfTransformers) {
  const json cases = reference("warped");
  ASSERT_GE(cases.size(), 20u);
  for (const json& entry : cases) {
    SCOPED_TRACE("seed " + entry.at("seed").dump());
    const auto ids = entry.at("ids").get<std::vector<std::int32_t>>();
    const auto probabilities = entry.at("probabilities").get<std::vector<double>>();
    const auto found = distribution_of(logits_of(entry), params_of(entry));
    double sum = 0;
    for (const TokenProbability& c : found) sum += c.probability;
    std::size_t at = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      // Less than the least float: as good as zero, and no candidate.
      if (probabilities[i] < 1e-38 && (at == found.size() || found[at].id != ids[i])) continue;
      ASSERT_LT(at, found.size()) << "too few";
      ASSERT_EQ(found[at].id, ids[i]);
      const double probability = found[at].probability / sum;
      ASSERT_NEAR(probability, probabilities[i], 2e-5 * probabilities[i] + 1e-37) << ids[i];
      ++at;
    }
    EXPECT_EQ(at, found.size()) << "too many";
  }
}

TEST(Distribution, FilterOrTheLackOfItKeepsAllOfASmallVocabulary) {
  const std::vector<float> logits = {1, 3, 2, 0};
  EXPECT_THAT(ids_of(logits, at_temperature(1)), ElementsAre(0, 1, 2, 3));
  SamplingParams p = at_temperature(1);
  p.top_k = std::numeric_limits<std::int32_t>::max();
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1, 2, 0, 3));
  p.top_k = 5;
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1, 2, 0, 3));
  p.top_k = 4;
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1, 2, 0, 3));
}

TEST(Distribution, LowestIdsWinTies) {
  const std::vector<float> logits = {0, 2, 1, 2, 1, 2, 1};
  SamplingParams p = at_temperature(1);
  p.top_k = 2;
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1, 3));
  p.top_k = 5;
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1, 3, 5, 2, 4));
  // e^2 : e : 1 = 7.389 : 2.718 : 1; the three largest alone have 22.167 of 31.32, 0.708.
  p = at_temperature(1);
  p.top_p = 0.4f;
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1, 3));
  p.top_p = 0.72f;
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1, 3, 5, 2));
  // Equal logits far beyond the first part that a nucleus sorts.
  const std::vector<float> equal(1000, 0.5f);
  p.top_p = 0.5f;
  std::vector<std::int32_t> expected(500);
  for (std::int32_t i = 0; i < 500; ++i) expected[static_cast<std::size_t>(i)] = i;
  EXPECT_EQ(ids_of(equal, p), expected);
}

TEST(Distribution, MinPKeepsWhatIsAsProbableAsItsShareOfTheLargest) {
  // Probabilities 1 : 1/2 : 1/4 : 1/8 of the largest.
  const float ln2 = std::log(2.0f);
  const std::vector<float> logits = {-2 * ln2, 0, -3 * ln2, -ln2};
  SamplingParams p = at_temperature(1);
  p.min_p = 0.2f;
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1, 3, 0));
  p.min_p = 1.0f;
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1));
  p = at_temperature(2);  // 1 : 0.71 : 0.5 : 0.35
  p.min_p = 0.4f;
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1, 3, 0));
}

TEST(Distribution, LeastFiltersLeaveTheBest) {
  const std::vector<float> logits = {1, 2, 2, 0};
  SamplingParams p = at_temperature(1);
  p.top_p = std::numeric_limits<float>::denorm_min();
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1));
  p.top_k = 1;
  p.min_p = 1;
  EXPECT_THAT(ids_of(logits, p), ElementsAre(1));
}

TEST(Distribution, TinyTemperatureIsGreedy) {
  const std::vector<float> logits = {-1, 5, 4.9999995f, -kLargest, kLargest / 2};
  EXPECT_THAT(ids_of(logits, at_temperature(1e-30f)), ElementsAre(4));
  EXPECT_THAT(ids_of({3, 3, 2}, at_temperature(1e-30f)), ElementsAre(0, 1));
  EXPECT_THAT(ids_of({3, 2, 3}, at_temperature(std::numeric_limits<float>::min())),
              ElementsAre(0, 2));
}

TEST(Distribution, LargestTemperatureIsEven) {
  const auto found = distribution_of({-kLargest / 4, 5, kLargest / 4}, at_temperature(kLargest));
  ASSERT_EQ(found.size(), 3u);
  EXPECT_GT(found[0].probability, 0.0f);
  EXPECT_EQ(found[2].probability, 1.0f);
}

TEST(Distribution, NotANumberIsNeverChosen) {
  EXPECT_THAT(ids_of({kNaN, 1, kNaN, 2}, at_temperature(1)), ElementsAre(1, 3));
  SamplingParams p = at_temperature(1);
  p.top_k = 3;
  p.top_p = 0.99f;
  p.min_p = 0.01f;
  EXPECT_THAT(ids_of({kNaN, 1, kNaN, 2}, p), ElementsAre(3, 1));
  EXPECT_THAT(ids_of({-kInfinity, 1, -kInfinity, 2}, p), ElementsAre(3, 1));
}

TEST(Distribution, IsNeverEmpty) {
  SamplingParams filtered = at_temperature(1);
  filtered.top_k = 3;
  filtered.top_p = 0.9f;
  filtered.min_p = 0.1f;
  for (const SamplingParams& p : {at_temperature(1), filtered}) {
    EXPECT_THAT(ids_of({-kInfinity, -kInfinity}, p), ElementsAre(0));
    EXPECT_THAT(ids_of({kNaN, kNaN, kNaN}, p), ElementsAre(0));
    EXPECT_THAT(ids_of({kNaN, -kInfinity}, p), testing::SizeIs(1));
    EXPECT_THAT(ids_of({0, kInfinity, kLargest, kInfinity, kNaN}, p), ElementsAre(1));
    EXPECT_THAT(ids_of({-kLargest}, p), ElementsAre(0));
  }
}

// A vocabulary as large as real ones, of which the filters look at a part; ranked here as a whole.
TEST(Distribution, FiltersOfALargeVocabularyKeepWhatAFullSortKeeps) {
  const std::vector<float> logits = formula_logits(77, 50'001, 12);
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<std::int32_t> ranked(logits.size());
  std::iota(ranked.begin(), ranked.end(), 0);
  std::stable_sort(ranked.begin(), ranked.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  const auto weight = [&](std::int32_t id) {
    return std::exp(logits[static_cast<std::size_t>(id)] - largest);
  };
  double sum = 0;
  for (const std::int32_t id : ranked) sum += weight(id);
  const auto nucleus = [&](double share) {
    double reached = 0;
    std::size_t count = 0;
    while (reached < share * sum) reached += weight(ranked[count++]);
    return count;
  };
  // Neighbours whose weights round alike may change places.
  const auto expect_first = [&](const SamplingParams& p, std::size_t count) {
    SCOPED_TRACE(count);
    const auto found = distribution_of(logits, p);
    ASSERT_EQ(found.size(), count);
    std::set<std::int32_t> ids;
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_NEAR(found[i].probability, weight(ranked[i]), 3e-6 * weight(ranked[i]));
      EXPECT_NEAR(found[i].probability, weight(found[i].id), 3e-6 * weight(found[i].id));
      ids.insert(found[i].id);
    }
    EXPECT_EQ(ids.size(), count);
  };
  for (const std::int32_t top_k : {1, 50, 1024, 3000, 50'000, 60'000}) {
    SamplingParams p = at_temperature(1);
    p.top_k = top_k;
    expect_first(p, std::min<std::size_t>(static_cast<std::size_t>(top_k), logits.size()));
  }
  for (const float top_p : {0.01f, 0.5f, 0.95f, 0.9999f}) {
    SamplingParams p = at_temperature(1);
    p.top_p = top_p;
    expect_first(p, nucleus(double{top_p}));
  }
  SamplingParams all = at_temperature(1);
  all.top_k = 3000;
  double top = 0;
  for (std::size_t i = 0; i < 3000; ++i) top += weight(ranked[i]);
  all.top_p = 0.9f;
  std::size_t left = 0;
  for (double reached = 0; reached < double{all.top_p} * top;) reached += weight(ranked[left++]);
  expect_first(all, left);
  all.min_p = static_cast<float>(weight(ranked[left / 2]) * 1.00001);
  expect_first(all, left / 2);
  SamplingParams p = at_temperature(1);
  p.min_p = 0.01f;
  const auto least = std::find_if(ranked.begin(), ranked.end(),
                                  [&](std::int32_t id) { return weight(id) < 0.01; });
  expect_first(p, static_cast<std::size_t>(least - ranked.begin()));
}

// ---- penalties

// All samplers of a thread share one scratch, whatever their rows were.
std::int32_t next(Sampler& sampler, const std::vector<float>& logits) {
  static SamplerScratch scratch(0);
  return sampler.sample(logits, scratch);
}

// What the penalties make of the logits. `tokens`: prompt, then answer.
std::vector<float> penalized(const std::vector<float>& logits, const SamplingParams& params,
                             const std::vector<std::int32_t>& tokens, std::size_t prompt_tokens) {
  Sampler sampler(params, 0, tokens, prompt_tokens);
  SamplerScratch scratch(logits.size());
  sampler.sample(logits, scratch);
  return scratch.logits;
}

TEST(Penalties, RepetitionIsThatOfTransformers) {
  const json cases = reference("penalized");
  ASSERT_EQ(cases.size(), 3u);
  for (const json& entry : cases) {
    SCOPED_TRACE("seed " + entry.at("seed").dump());
    const std::vector<float> logits = logits_of(entry);
    const auto tokens = entry.at("tokens").get<std::vector<std::int32_t>>();
    const auto expected = entry.at("logits").get<std::vector<float>>();
    // Prompt and answer count alike.
    for (const std::size_t prompt_tokens : {std::size_t{0}, std::size_t{2}, tokens.size()}) {
      const auto found = penalized(logits, params_of(entry), tokens, prompt_tokens);
      ASSERT_EQ(found.size(), expected.size());
      for (std::size_t i = 0; i < found.size(); ++i) EXPECT_FLOAT_EQ(found[i], expected[i]) << i;
    }
  }
}

// mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence, c[j]: how often token j was
// sampled before (OpenAI API documentation). Prompt 1 1 3, answer 0 2 2 2.
TEST(Penalties, PresenceAndFrequencyAreThoseOfOpenAi) {
  const std::vector<float> logits = {1, 2, 3, -4, 5};
  const std::vector<std::int32_t> tokens = {1, 1, 3, 0, 2, 2, 2};
  SamplingParams p;
  p.presence_penalty = 0.5f;
  EXPECT_THAT(penalized(logits, p, tokens, 3), ElementsAre(0.5f, 2, 2.5f, -4, 5));
  p.presence_penalty = 0;
  p.frequency_penalty = 0.25f;
  EXPECT_THAT(penalized(logits, p, tokens, 3), ElementsAre(0.75f, 2, 2.25f, -4, 5));
  p.presence_penalty = -1;
  p.frequency_penalty = -2;
  EXPECT_THAT(penalized(logits, p, tokens, 3), ElementsAre(4, 2, 10, -4, 5));
}

TEST(Penalties, RepetitionComesFirst) {
  SamplingParams p;
  p.repetition_penalty = 2;
  p.presence_penalty = 0.5f;
  p.frequency_penalty = 0.25f;
  // Prompt 0 1, answer 2 2 3: 8/2; -8*2; 8/2 - 0.5 - 2*0.25; -8*2 - 0.5 - 0.25; untouched.
  EXPECT_THAT(penalized({8, -8, 8, -8, 1}, p, {0, 1, 2, 2, 3}, 2),
              ElementsAre(4, -16, 3, -16.75f, 1));
}

TEST(Penalties, CountWhatIsSampled) {
  SamplingParams p;
  p.frequency_penalty = 1;
  Sampler sampler(p, 0, std::vector<std::int32_t>{1}, 1);
  std::vector<std::int32_t> chosen;
  for (int i = 0; i < 6; ++i) {
    std::vector<float> logits = {0, 2.5f, 1.75f};
    chosen.push_back(next(sampler, logits));
  }
  // 1 falls to 1.5, 2 to 0.75, 1 to 0.5, 2 to -0.25, 1 to -0.5; then 0 is the best.
  EXPECT_THAT(chosen, ElementsAre(1, 2, 1, 2, 1, 0));
}

TEST(Penalties, IgnoreWhatIsOutsideTheVocabulary) {
  SamplingParams p;
  p.repetition_penalty = 2;
  EXPECT_THAT(penalized({1, 4}, p, {-1, 2, 1 << 30, 1}, 3), ElementsAre(1, 2));
}

TEST(Penalties, LeaveHopelessLogitsHopeless) {
  SamplingParams p;
  p.repetition_penalty = 1.5f;
  p.presence_penalty = -2;
  std::vector<float> logits = {-kInfinity, kNaN, -3};
  Sampler sampler(p, 0, std::vector<std::int32_t>{0, 1}, 0);
  SamplerScratch scratch(3);
  EXPECT_EQ(sampler.sample(logits, scratch), 2);
  EXPECT_EQ(scratch.logits[0], -kInfinity);
  EXPECT_TRUE(std::isnan(scratch.logits[1]));
}

// ---- drawing

std::int32_t draw(const SamplingParams& params, std::uint64_t record, std::size_t position,
                  std::vector<float> logits) {
  Sampler sampler(params, record, std::vector<std::int32_t>(position), 0);
  return next(sampler, logits);
}

TEST(Greedy, TakesTheLargestAndTheLowestIdOnATie) {
  SamplingParams p;
  p.top_k = 2;  // of no effect
  EXPECT_EQ(draw(p, 0, 0, {1, 3, 2, 3}), 1);
  EXPECT_EQ(draw(p, 0, 0, {-5, -3, -4}), 1);
  EXPECT_EQ(draw(p, 0, 0, {kNaN, -kLargest, -kInfinity}), 1);
  EXPECT_EQ(draw(p, 0, 0, {-kInfinity, -kInfinity}), 0);
  EXPECT_EQ(draw(p, 0, 0, {kNaN, kNaN}), 0);
  EXPECT_EQ(draw(p, 0, 0, {1, kInfinity, kInfinity}), 1);
}

// Frequencies over 20000 draws: each within 4.5 standard deviations of its probability.
void expect_frequencies(const std::map<std::int32_t, int>& counts, int draws,
                        const std::map<std::int32_t, double>& probabilities) {
  for (const auto& [id, count] : counts) EXPECT_TRUE(probabilities.contains(id)) << id;
  for (const auto& [id, probability] : probabilities) {
    const auto found = counts.find(id);
    const double frequency = (found == counts.end() ? 0.0 : found->second) / draws;
    EXPECT_NEAR(frequency, probability, 4.5 * std::sqrt(probability * (1 - probability) / draws))
        << "token " << id;
  }
}

TEST(Draws, HaveTheirProbabilitiesOverRecordsPositionsAndSeeds) {
  constexpr int kDraws = 20000;
  std::vector<float> logits;
  const std::map<std::int32_t, double> wanted = {{0, 0.4},  {1, 0.05}, {2, 0.25},
                                                 {3, 0.01}, {4, 0.19}, {5, 0.1}};
  for (const auto& [id, probability] : wanted) {
    logits.push_back(static_cast<float>(std::log(probability)) + 3.0f);
  }
  SamplingParams p = at_temperature(1);
  p.seed = 42;
  std::map<std::int32_t, int> by_record;
  std::map<std::int32_t, int> by_position;
  std::map<std::int32_t, int> by_seed;
  Sampler sequence(p, 17, {}, 0);
  for (std::uint32_t i = 0; i < kDraws; ++i) {
    ++by_record[draw(p, i, 0, logits)];
    ++by_position[next(sequence, logits)];
    SamplingParams other = p;
    other.seed = i;
    ++by_seed[draw(other, 17, 3, logits)];
  }
  expect_frequencies(by_record, kDraws, wanted);
  expect_frequencies(by_position, kDraws, wanted);
  expect_frequencies(by_seed, kDraws, wanted);
}

TEST(Draws, HaveTheProbabilitiesThatFiltersLeave) {
  constexpr int kDraws = 20000;
  const json cases = reference("warped");
  int drawn = 0;
  for (const json& entry : cases) {
    const std::uint32_t seed = entry.at("seed");
    if (seed != 9 && seed != 11 && seed != 3) continue;
    const auto ids = entry.at("ids").get<std::vector<std::int32_t>>();
    const auto probabilities = entry.at("probabilities").get<std::vector<double>>();
    std::map<std::int32_t, double> wanted;
    for (std::size_t i = 0; i < ids.size(); ++i) wanted[ids[i]] = probabilities[i];
    std::map<std::int32_t, int> counts;
    const std::vector<float> logits = logits_of(entry);
    for (std::uint32_t i = 0; i < kDraws; ++i) ++counts[draw(params_of(entry), i, 1, logits)];
    expect_frequencies(counts, kDraws, wanted);
    ++drawn;
  }
  EXPECT_EQ(drawn, 3);
}

// Two draws that differ in one coordinate agree as often as independent ones: with eight equal
// tokens, one time in eight.
TEST(Draws, OfNeighboursAreIndependent) {
  constexpr int kDraws = 20000;
  const std::vector<float> logits(8, 1.0f);
  const double tolerance = 4.5 * std::sqrt(1.0 / 8 * 7 / 8 / kDraws);
  std::array<int, 3> same{};
  SamplingParams p = at_temperature(1);
  SamplingParams next_seed = p;
  for (std::uint32_t i = 0; i < kDraws; ++i) {
    p.seed = i % 100;
    next_seed.seed = p.seed + 1;
    const std::int32_t here = draw(p, i, i % 7, logits);
    same[0] += draw(p, i + 1, i % 7, logits) == here ? 1 : 0;
    same[1] += draw(p, i, i % 7 + 1, logits) == here ? 1 : 0;
    same[2] += draw(next_seed, i, i % 7, logits) == here ? 1 : 0;
  }
  for (const int count : same) EXPECT_NEAR(count / double{kDraws}, 1.0 / 8, tolerance);
}

// Of n equal tokens the one in whose n-th part the random number lies; the number is keyed by the
// place in the answer, wherever the prompt ends.
// Every thousandth id has a weight, and each its own; 1,000 draws are those of the running sums.
TEST(Draws, OfFewAmongMany) {
  std::vector<float> logits(60'000, -kInfinity);
  double sum = 0;
  std::vector<std::pair<std::int32_t, double>> ends;
  for (std::int32_t id = 999; id < 60'000; id += 1000) {
    const double weight = 1 + id % 7;
    logits[static_cast<std::size_t>(id)] = static_cast<float>(std::log(weight));
    ends.emplace_back(id, sum += weight);
  }
  std::map<std::int32_t, int> drawn;
  for (std::uint64_t record = 0; record < 1000; ++record) {
    const double point = uniform(11, record, 0, 0) * sum;
    const auto want = std::find_if(ends.begin(), ends.end(),
                                   [&](const auto& end) { return point < end.second - 1e-4; });
    SamplingParams p = at_temperature(1);
    p.seed = 11;
    const std::int32_t id = draw(p, record, 0, logits);
    ++drawn[id];
    if (want == ends.end()) continue;  // too near to an end to tell
    if (want == ends.begin() || point > (want - 1)->second + 1e-4) {
      EXPECT_EQ(id, want->first);
    }
  }
  EXPECT_GT(drawn.size(), 40u);
}

// With filters candidates lie in the order of their probability, all 50,000 of them here.
TEST(Draws, ByRankOfManyThatAreKept) {
  const std::vector<float> logits = formula_logits(5, 50'001, 3);
  SamplingParams p = at_temperature(1);
  p.min_p = 1e-30f;
  std::vector<TokenProbability> ranked = distribution_of(logits, p);
  ASSERT_EQ(ranked.size(), logits.size());
  double sum = 0;
  for (const TokenProbability& c : ranked) sum += c.probability;
  for (std::uint64_t record = 0; record < 200; ++record) {
    const double point = uniform(0, record, 0, 0) * sum;
    double end = 0;
    std::size_t rank = 0;
    while (end <= point) end += ranked[rank++].probability;
    // What rounding of sums can move.
    const bool clear =
        end - point > 1e-9 * sum && point - (end - ranked[rank - 1].probability) > 1e-9 * sum;
    const std::int32_t id = draw(p, record, 0, logits);
    if (clear) {
      EXPECT_EQ(id, ranked[rank - 1].id) << record;
    }
  }
}

TEST(Draws, TakeTheNumberOfTheAnswersPosition) {
  SamplingParams p = at_temperature(1);
  p.seed = 5;
  const std::vector<std::int32_t> tokens = {1, 2, 3, 4, 5, 6};
  for (std::uint64_t record = 0; record < 50; ++record) {
    for (const std::size_t prompt_tokens : {0u, 4u, 6u}) {
      Sampler sampler(p, record, tokens, prompt_tokens);
      for (std::uint32_t i = 0; i < 3; ++i) {
        std::vector<float> logits(1000, 2.0f);
        const auto position = static_cast<std::uint32_t>(6 - prompt_tokens) + i;
        EXPECT_EQ(next(sampler, logits),
                  static_cast<std::int32_t>(uniform(5, record, 0, position) * 1000));
      }
    }
  }
}

TEST(Draws, DoNotDependOnEarlierLogits) {
  const SamplingParams p = at_temperature(1);
  const std::vector<float> logits = formula_logits(5, 100, 1);
  Sampler after_greed(p, 9, {}, 0);
  Sampler after_even(p, 9, {}, 0);
  std::vector<float> sharp(100, -50.0f);
  sharp[3] = 50;
  std::vector<float> even(100, 0.0f);
  next(after_greed, sharp);
  next(after_even, even);
  EXPECT_EQ(next(after_greed, logits), next(after_even, logits));
}

// A sequence that was evicted gets its sampler anew from its tokens.
TEST(Sampler, RebuiltFromItsTokensGoesOnIdentically) {
  constexpr std::size_t kVocab = 40;
  constexpr std::uint32_t kLength = 60;
  SamplingParams greedy;
  greedy.repetition_penalty = 1.2f;
  greedy.frequency_penalty = 0.3f;
  SamplingParams drawn = at_temperature(1.5f);
  drawn.seed = 1234567890123ull;
  SamplingParams all = drawn;
  all.top_k = 30;
  all.top_p = 0.95f;
  all.min_p = 0.01f;
  all.repetition_penalty = 1.3f;
  all.presence_penalty = 0.7f;
  all.frequency_penalty = 0.2f;
  const std::vector<std::int32_t> prompt = {1, 5, 5, 39};
  for (const SamplingParams& p : {greedy, drawn, all}) {
    const auto go_on = [&](std::vector<std::int32_t> tokens) {
      Sampler sampler(p, 77, tokens, prompt.size());
      while (tokens.size() < prompt.size() + kLength) {
        std::vector<float> logits =
            formula_logits(static_cast<std::uint32_t>(tokens.size()) % 5, kVocab, 2);
        tokens.push_back(next(sampler, logits));
      }
      return tokens;
    };
    const std::vector<std::int32_t> whole = go_on(prompt);
    for (std::uint32_t kept = 0; kept <= kLength; kept += 7) {
      EXPECT_EQ(go_on({whole.begin(), whole.begin() + 4 + kept}), whole) << "after " << kept;
    }
  }
}

}  // namespace
}  // namespace penstock::model
