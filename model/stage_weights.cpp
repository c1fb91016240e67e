#include "model/stage_weights.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

namespace penstock::model {
namespace {

std::size_t size(std::int64_t value) { return static_cast<std::size_t>(value); }

class Packer {
 public:
  Packer(WeightLoader& loader, LinearFactory& factory) : loader_(&loader), factory_(&factory) {}

  std::unique_ptr<Linear> linear(const LinearShape& shape, const std::vector<std::string>& names) {
    std::vector<float> bias;
    const HostBuffer plain = loader_->matrices(names);
    if (shape.bias) {
      std::vector<std::string> bias_names;
      for (const std::string& name : names) bias_names.push_back(name + "_bias");
      bias = loader_->vectors(bias_names);
    }
    auto result = factory_->make(shape, plain.data(), shape.bias ? bias.data() : nullptr);
    bytes_ += result->weight_bytes();
    return result;
  }

  std::vector<float> vector(const std::string& name) {
    auto result = loader_->vectors({&name, 1});
    bytes_ += result.size() * sizeof(float);
    return result;
  }

  HostBuffer table(const std::string& name) {
    auto result = loader_->matrices({&name, 1});
    bytes_ += result.size_bytes();
    return result;
  }

  std::uint64_t bytes() const { return bytes_; }

 private:
  WeightLoader* loader_;
  LinearFactory* factory_;
  std::uint64_t bytes_ = 0;
};

}  // namespace

StageShapes stage_shapes(const ModelConfig& config, const StageOptions& options) {
  LinearShape base;
  base.dtype = options.dtype;
  base.out_dtype = options.dtype;
  base.max_rows = options.max_rows;
  const auto shape = [&](std::int64_t in, std::int64_t out, bool bias) {
    LinearShape result = base;
    result.in_features = size(in);
    result.out_features = size(out);
    result.bias = bias;
    return result;
  };
  const std::int64_t q = config.num_heads * config.head_dim;
  const std::int64_t kv = config.num_kv_heads * config.head_dim;
  StageShapes shapes;
  shapes.qkv = shape(config.hidden_size, q + 2 * kv, config.attention_bias);
  shapes.o = shape(q, config.hidden_size, config.attention_bias);
  shapes.gate_up = shape(config.hidden_size, 2 * config.intermediate_size, config.mlp_bias);
  shapes.down = shape(config.intermediate_size, config.hidden_size, config.mlp_bias);
  shapes.head = shape(config.hidden_size, config.vocab_size, false);
  shapes.head.out_dtype = io::DType::f32;
  shapes.head.max_rows = options.max_samples;
  return shapes;
}

std::uint64_t largest_plain_bytes(const ModelConfig& config, const StageRange& range,
                                  const StageOptions& options) {
  const StageShapes shapes = stage_shapes(config, options);
  std::uint64_t largest = 0;
  for (const auto* shape : {&shapes.qkv, &shapes.o, &shapes.gate_up, &shapes.down,
                            range.last ? &shapes.head : nullptr}) {
    if (shape == nullptr) continue;
    const std::uint64_t elements = std::uint64_t{shape->in_features} * shape->out_features;
    largest = std::max(largest, elements * io::size_of(shape->dtype));
  }
  return largest;
}

void prepare_products(LinearFactory& factory, const ModelConfig& config, const StageRange& range,
                      const StageOptions& options) {
  const StageShapes shapes = stage_shapes(config, options);
  for (const auto* shape : {&shapes.qkv, &shapes.o, &shapes.gate_up, &shapes.down}) {
    factory.prepare(*shape);
  }
  if (range.last) factory.prepare(shapes.head);
}

StageWeights load_stage_weights(WeightLoader& loader, LinearFactory& factory,
                                const ModelConfig& config, const StageRange& range,
                                const StageOptions& options) {
  const StageShapes shapes = stage_shapes(config, options);
  StageWeights weights;
  Packer packer(loader, factory);
  if (range.first) weights.embedding = packer.table("/embed/weight");
  for (std::int64_t index = range.begin; index < range.end; ++index) {
    const auto name = [&](const char* part) {
      return fmt::format("/layers/{:04}/{}", index, part);
    };
    LayerWeights layer;
    layer.attn_norm = packer.vector(name("attn/norm"));
    layer.qkv = packer.linear(shapes.qkv, {name("attn/q"), name("attn/k"), name("attn/v")});
    layer.o = packer.linear(shapes.o, {name("attn/o")});
    layer.mlp_norm = packer.vector(name("mlp/norm"));
    layer.gate_up = packer.linear(shapes.gate_up, {name("mlp/gate"), name("mlp/up")});
    layer.down = packer.linear(shapes.down, {name("mlp/down")});
    weights.layers.push_back(std::move(layer));
  }
  if (range.last) {
    weights.final_norm = packer.vector("/final/norm");
    weights.head = packer.linear(shapes.head, {"/head/weight"});
  }
  weights.resident_bytes = packer.bytes();
  return weights;
}

}  // namespace penstock::model
