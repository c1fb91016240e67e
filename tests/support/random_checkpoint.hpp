#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "io/checkpoint.hpp"
#include "model/config.hpp"
#include "model/weights.hpp"

namespace penstock::tests {

// A checkpoint of random weights that goes with the object.
class RandomCheckpoint {
 public:
  // `name` keeps apart what one test program makes at the same time.
  RandomCheckpoint(const model::ModelConfig& config, io::DType dtype, const std::string& name)
      : path_(testing::TempDir() + "penstock_" + name + "_" + std::to_string(getpid()) + ".h5") {
    io::CheckpointHeader header;
    header.architecture = config.architecture;
    header.source = "random";
    header.dtype = dtype;
    header.config = model::to_attributes(config);
    std::vector<io::TensorSpec> tensors;
    const auto specs = model::weight_specs(config);
    for (const auto& spec : specs) {
      tensors.push_back({spec.name, spec.is_matrix ? dtype : io::DType::f32, spec.shape});
    }
    io::CheckpointWriter writer(path_, header, tensors);
    std::mt19937 generator(17);
    for (std::size_t i = 0; i < specs.size(); ++i) {
      const auto values = random_tensor(specs[i], generator);
      std::vector<std::byte> bytes(values.size() * io::size_of(tensors[i].dtype));
      io::convert(values.data(), io::DType::f32, bytes.data(), tensors[i].dtype, values.size());
      writer.append(i, bytes);
    }
    writer.finish();
  }
  ~RandomCheckpoint() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  RandomCheckpoint(const RandomCheckpoint&) = delete;
  RandomCheckpoint& operator=(const RandomCheckpoint&) = delete;

  const std::string& path() const { return path_; }

 private:
  // Scaled so that activations keep their size.
  static std::vector<float> random_tensor(const model::WeightSpec& spec, std::mt19937& generator) {
    std::size_t count = 1;
    for (const std::uint64_t extent : spec.shape) count *= static_cast<std::size_t>(extent);
    const bool norm = spec.name.ends_with("norm");
    const float range =
        spec.is_matrix ? std::sqrt(3.0f / static_cast<float>(spec.shape.back())) : 0.2f;
    std::uniform_real_distribution<float> distribution(-range, range);
    std::vector<float> values(count);
    for (float& value : values) value = distribution(generator) + (norm ? 1.0f : 0.0f);
    return values;
  }

  std::string path_;
};

}  // namespace penstock::tests
