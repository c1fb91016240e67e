#include "model/weight_places.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "model/memory_places.hpp"

namespace penstock::model {
namespace {

class Placer {
 public:
  Placer(const WeightLoader& tensors, io::DType dtype, std::vector<WeightPiece>& pieces)
      : tensors_(&tensors), dtype_(dtype), pieces_(&pieces) {}

  // Tensors one behind the other without gaps.
  std::uint64_t add(const std::vector<std::string>& names, io::DType dtype) {
    std::uint64_t elements = 0;
    for (const std::string& name : names) elements += elements_of(name);
    const std::uint64_t place = places_.add(elements, io::size_of(dtype));
    std::uint64_t at = place;
    for (const std::string& name : names) {
      cut(tensors_->tensor(name), dtype, at);
      at += elements_of(name) * io::size_of(dtype);
    }
    return place;
  }

  std::uint64_t norm(const std::string& name) { return add({name}, io::DType::f32); }
  std::uint64_t matrix(const std::string& name) { return add({name}, dtype_); }

  WeightPlaces::Product product(const std::vector<std::string>& names, bool bias) {
    WeightPlaces::Product result;
    result.weight = add(names, dtype_);
    if (bias) {
      std::vector<std::string> biases;
      for (const std::string& name : names) biases.push_back(name + "_bias");
      result.bias = add(biases, dtype_);
    }
    return result;
  }

  std::uint64_t end() const { return places_.end(); }

 private:
  std::uint64_t elements_of(const std::string& name) const {
    const io::TensorInfo& tensor = tensors_->tensor(name);
    return tensor.size_bytes / io::size_of(tensor.dtype);
  }

  void cut(const io::TensorInfo& tensor, io::DType dtype, std::uint64_t place) {
    for (std::uint64_t at = 0; at < tensor.size_bytes; at += io::kChecksumBlockBytes) {
      const std::uint64_t elements = at / io::size_of(tensor.dtype);
      pieces_->push_back({&tensor, at, std::min(io::kChecksumBlockBytes, tensor.size_bytes - at),
                          dtype, place + elements * io::size_of(dtype)});
    }
  }

  const WeightLoader* tensors_;
  io::DType dtype_;
  std::vector<WeightPiece>* pieces_;
  MemoryPlaces places_{kGpuAlignment};
};

}  // namespace

WeightPlaces place_weights(const WeightLoader& tensors, const ModelConfig& config,
                           const StageRange& range, const StageOptions& options) {
  WeightPlaces places;
  Placer placer(tensors, options.dtype, places.pieces);
  if (range.first) places.embedding = placer.matrix("/embed/weight");
  for (std::int64_t index = range.begin; index < range.end; ++index) {
    const auto name = [&](const char* part) {
      return fmt::format("/layers/{:04}/{}", index, part);
    };
    WeightPlaces::Layer layer;
    layer.attn_norm = placer.norm(name("attn/norm"));
    layer.qkv =
        placer.product({name("attn/q"), name("attn/k"), name("attn/v")}, config.attention_bias);
    layer.o = placer.product({name("attn/o")}, config.attention_bias);
    layer.mlp_norm = placer.norm(name("mlp/norm"));
    layer.gate_up = placer.product({name("mlp/gate"), name("mlp/up")}, config.mlp_bias);
    layer.down = placer.product({name("mlp/down")}, config.mlp_bias);
    places.layers.push_back(layer);
  }
  if (range.last) {
    places.final_norm = placer.norm("/final/norm");
    places.head = placer.product({"/head/weight"}, false);
  }
  places.bytes = placer.end();
  return places;
}

}  // namespace penstock::model
