#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/tensor_source.hpp"

namespace penstock::io {

// The safetensors files of a Hugging Face folder: model.safetensors, or the shards that
// model.safetensors.index.json names. F32, F16 and BF16 tensors are read; others are listed, and
// refused by name when they are read.
// Format: github.com/huggingface/safetensors, README, "Format".
class SafetensorsFolder : public TensorSource {
 public:
  explicit SafetensorsFolder(const std::string& folder);
  ~SafetensorsFolder() override;

  const std::vector<SourceTensor>& tensors() const override;
  void read(std::size_t tensor, std::uint64_t first, std::span<float> out) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock::io
