#include <cmath>
#include <numbers>

#include "model/ops/rope.hpp"

namespace penstock::model {
namespace {

// Long contexts are scaled, short wavelengths are not, between the two it is blended.
float llama3_scaled(float frequency, const RopeScaling& scaling) {
  const auto factor = static_cast<float>(scaling.factor);
  const double original = static_cast<double>(scaling.original_max_position);
  const auto low_wavelength = static_cast<float>(original / scaling.low_freq_factor);
  const auto high_wavelength = static_cast<float>(original / scaling.high_freq_factor);
  const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
  if (wavelength > low_wavelength) return frequency / factor;
  if (wavelength < high_wavelength) return frequency;
  const float smooth =
      (static_cast<float>(original) / wavelength - static_cast<float>(scaling.low_freq_factor)) /
      static_cast<float>(scaling.high_freq_factor - scaling.low_freq_factor);
  return (1.0f - smooth) * (frequency / factor) + smooth * frequency;
}

}  // namespace

std::vector<float> rope_frequencies(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  std::vector<float> frequencies(static_cast<std::size_t>(config.head_dim / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    // The power is taken in double and rounded, which is what a good f32 pow returns; the exponent
    // and the reciprocal are f32 as in transformers.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    const auto power =
        static_cast<float>(std::pow(config.rope_theta, static_cast<double>(exponent)));
    const float frequency = 1.0f / power;
    switch (scaling.kind) {
      case RopeScaling::Kind::none:
        frequencies[i] = frequency;
        break;
      case RopeScaling::Kind::linear:
        frequencies[i] = frequency / static_cast<float>(scaling.factor);
        break;
      case RopeScaling::Kind::llama3:
        frequencies[i] = llama3_scaled(frequency, scaling);
        break;
    }
  }
  return frequencies;
}

}  // namespace penstock::model
