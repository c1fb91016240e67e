#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/convert/convert.hpp"

// A tiny Hugging Face folder that a test breaks in its own way.
namespace penstock::tests {

// An empty folder of this process; it goes when the process ends.
inline std::filesystem::path scratch() {
  struct Folder {
    std::filesystem::path path = std::filesystem::path(testing::TempDir()) /
                                 ("penstock_convert_" + std::to_string(getpid()));
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  };
  static const Folder folder;
  std::filesystem::remove_all(folder.path);
  std::filesystem::create_directories(folder.path);
  return folder.path;
}

inline void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// A folder whose safetensors file is written here: header by hand, zeros for numbers.
struct Tensor {
  std::string name;
  std::vector<std::uint64_t> shape;
  std::string dtype = "BF16";
};

inline std::vector<Tensor> tiny_tensors() {
  const std::string layer = "model.layers.0.";
  return {{"model.embed_tokens.weight", {300, 32}},
          {layer + "input_layernorm.weight", {32}},
          {layer + "self_attn.q_proj.weight", {32, 32}},
          {layer + "self_attn.k_proj.weight", {16, 32}},
          {layer + "self_attn.v_proj.weight", {16, 32}},
          {layer + "self_attn.o_proj.weight", {32, 32}},
          {layer + "post_attention_layernorm.weight", {32}},
          {layer + "mlp.gate_proj.weight", {64, 32}},
          {layer + "mlp.up_proj.weight", {64, 32}},
          {layer + "mlp.down_proj.weight", {32, 64}},
          {"model.norm.weight", {32}},
          {"lm_head.weight", {300, 32}}};
}

// One token; a convert only asks that a run could use it.
inline constexpr const char* kTinyTokenizer =
    R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})";

inline nlohmann::json tiny_config() {
  return {{"model_type", "llama"},    {"hidden_size", 32},
          {"intermediate_size", 64},  {"num_hidden_layers", 1},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2},
          {"vocab_size", 300},        {"max_position_embeddings", 64}};
}

inline void write_folder(const std::filesystem::path& folder, const nlohmann::json& config,
                         const std::vector<Tensor>& tensors) {
  std::filesystem::create_directories(folder);
  write(folder / "config.json", config.dump());
  write(folder / "tokenizer.json", kTinyTokenizer);
  nlohmann::json header = nlohmann::json::object();
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    std::uint64_t bytes = tensor.dtype == "F32" ? 4 : tensor.dtype == "I8" ? 1 : 2;
    for (const std::uint64_t extent : tensor.shape) bytes *= extent;
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  const std::string text = header.dump();
  const std::uint64_t length = text.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  write(folder / "model.safetensors", bytes + text);
  std::filesystem::resize_file(folder / "model.safetensors",
                               8 + length + offset);  // a hole reads as zeros
}

// What converting says to a source that it refuses.
inline std::string refusal(const std::filesystem::path& source,
                           const std::filesystem::path& destination) {
  try {
    model::convert_model(source.string(), destination.string(), {}, {});
  } catch (const std::exception& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace penstock::tests
