#include "model/convert/random_weights.hpp"

#include <cmath>
#include <string_view>

namespace penstock::model {
namespace {

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;
constexpr double kHeadPeak = 4.0;
constexpr float kBiasScale = 0.02f;

constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

void fill_random(std::uint64_t key, std::uint64_t first, float scale, std::span<float> out) {
  // A uniform number of 0 … 65535 has variance (2^32 - 1) / 12, four of them four times that.
  const float unit = scale / std::sqrt((4294967296.0f - 1.0f) / 3.0f);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::uint64_t bits = mix(key + (first + i) * kGolden);
    const auto sum = static_cast<std::int32_t>((bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) +
                                               ((bits >> 32) & 0xFFFF) + (bits >> 48));
    out[i] = static_cast<float>(sum - 2 * 65535) * unit;
  }
}

std::uint64_t stream_key(std::uint64_t seed, const ModelConfig& config, const WeightSpec& spec) {
  const bool tied = spec.group == WeightGroup::head && config.tie_word_embeddings;
  const std::string_view name = tied ? "/embed/weight" : std::string_view(spec.name);
  std::uint64_t key = mix(seed + kGolden);
  for (const char c : name) key = mix((key ^ static_cast<unsigned char>(c)) + kGolden);
  return key;
}

float weight_scale(const ModelConfig& config, const WeightSpec& spec) {
  const auto of = [](double scale) { return static_cast<float>(scale); };
  if (!spec.is_matrix) return spec.name.ends_with("_bias") ? kBiasScale : 0.0f;
  const double fan_in = 1.0 / std::sqrt(static_cast<double>(spec.shape.back()));
  const bool is_embedding = spec.group == WeightGroup::embedding;
  if (spec.group == WeightGroup::head || (is_embedding && config.tie_word_embeddings)) {
    return of(kHeadPeak * fan_in);
  }
  if (is_embedding) return 1.0f;
  if (spec.name.ends_with("/o") || spec.name.ends_with("/down")) {
    return of(fan_in / std::sqrt(2.0 * static_cast<double>(config.num_layers)));
  }
  return of(fan_in);
}

}  // namespace penstock::model
