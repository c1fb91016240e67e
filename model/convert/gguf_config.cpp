#include "model/convert/gguf_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numbers>
#include <vector>

#include "io/error.hpp"
#include "model/error.hpp"

namespace penstock::model {
namespace {

constexpr const char* kKeys[] = {
    "general.architecture",
    "general.name",
    "general.file_type",
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.vocab_size",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.value_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.rope.dimension_count",
    "llama.rope.freq_base",
    "llama.rope.scaling.type",
    "llama.rope.scaling.factor",
    "llama.rope.scale_linear",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
};

// The converter's float32 arithmetic against ours in double.
constexpr double kDivisorTolerance = 1e-4;

// GGUF stores f32: 1e-5 reads as 9.9999997e-06. The shortest decimal that gives the same f32 is
// what the config once said.
double as_written(double value) {
  const auto narrow = static_cast<float>(value);
  if (static_cast<double>(narrow) != value) return value;
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text) - 1, narrow).ptr;
  *end = '\0';
  return std::strtod(text, nullptr);
}

std::int64_t integer_or(const io::GgufFile& file, std::string_view key, std::int64_t absent) {
  return file.find(key) == nullptr ? absent : file.integer(key);
}

double real_or(const io::GgufFile& file, std::string_view key, double absent) {
  return file.find(key) == nullptr ? absent : as_written(file.real(key));
}

const io::SourceTensor* find_tensor(const io::GgufFile& file, std::string_view name) {
  const auto& tensors = file.tensors();
  const auto it = std::find_if(tensors.begin(), tensors.end(),
                               [&](const io::SourceTensor& tensor) { return tensor.name == name; });
  return it == tensors.end() ? nullptr : &*it;
}

void expect_equal(std::string_view key, std::int64_t value, std::string_view other,
                  std::int64_t expected) {
  if (value != expected) {
    throw ModelError(fmt::format("{} is {}, but {} is {}; models of this kind are not supported",
                                 key, value, other, expected));
  }
}

// What llama3's formula divides the frequency of each pair by.
// Source: transformers, modeling_rope_utils.py, _compute_llama3_parameters.
double llama3_divisor(const RopeScaling& scaling, double frequency) {
  const double length = 2 * std::numbers::pi / frequency;
  const auto original = static_cast<double>(scaling.original_max_position);
  if (length < original / scaling.high_freq_factor) return 1.0;
  if (length > original / scaling.low_freq_factor) return scaling.factor;
  const double smooth = (original / length - scaling.low_freq_factor) /
                        (scaling.high_freq_factor - scaling.low_freq_factor);
  return 1.0 / ((1.0 - smooth) / scaling.factor + smooth);
}

void read_rope_scaling(io::GgufFile& file, ModelConfig& config) {
  const char* type_key = "llama.rope.scaling.type";
  const std::string type = file.find(type_key) == nullptr ? "none" : file.text(type_key);
  if (type != "none" && type != "linear") {
    throw ModelError(
        fmt::format("{} {} is not supported; supported: none, linear, and llama3 as "
                    "the tensor rope_freqs.weight",
                    type_key, io::quoted(type)));
  }
  const double old_factor = real_or(file, "llama.rope.scale_linear", 1.0);
  const double factor = real_or(file, "llama.rope.scaling.factor", old_factor);
  if (type == "linear" || (type == "none" && old_factor != 1.0)) {
    config.rope_scaling.kind = RopeScaling::Kind::linear;
    config.rope_scaling.factor = factor;
  }
  const io::SourceTensor* divisors = find_tensor(file, "rope_freqs.weight");
  if (divisors == nullptr) return;
  if (config.rope_scaling.kind != RopeScaling::Kind::none) {
    throw ModelError("rope_freqs.weight and linear rope scaling together are not supported");
  }
  if (divisors->elements != static_cast<std::uint64_t>(config.head_dim / 2)) {
    throw ModelError(fmt::format("rope_freqs.weight has {} elements, expected head_dim / 2 = {}",
                                 divisors->elements, config.head_dim / 2));
  }
  std::vector<float> values(divisors->elements);
  file.read(static_cast<std::size_t>(divisors - file.tensors().data()), 0, values);
  config.rope_scaling = rope_scaling_of(values, config.rope_theta);
}

void read_vocabulary(const io::GgufFile& file, ModelConfig& config) {
  // The embedding decides: vocabularies may be padded beyond the tokenizer's.
  const io::SourceTensor* embedding = find_tensor(file, "token_embd.weight");
  if (embedding == nullptr) {
    throw ModelError("tensor token_embd.weight is missing: the file holds no model weights");
  }
  if (embedding->shape.size() != 2 || embedding->shape[0] > (1u << 30)) {
    throw ModelError("tensor token_embd.weight is not a matrix [vocabulary, hidden]");
  }
  config.vocab_size = static_cast<std::int64_t>(embedding->shape[0]);
  if (file.find("tokenizer.ggml.tokens") != nullptr) {
    const auto tokens = static_cast<std::int64_t>(file.texts("tokenizer.ggml.tokens").size());
    if (tokens > config.vocab_size) {
      throw ModelError(
          fmt::format("tokenizer.ggml.tokens has {} tokens, but token_embd.weight "
                      "only {} rows",
                      tokens, config.vocab_size));
    }
  }
  for (const char* name : {"eos", "eot", "eom"}) {
    const std::int64_t id = integer_or(file, fmt::format("tokenizer.ggml.{}_token_id", name), -1);
    if (id < 0 || id >= config.vocab_size) continue;  // -1 is how some files say "none"
    auto& ids = config.eos_token_ids;
    const auto narrow = static_cast<std::int32_t>(id);
    if (std::find(ids.begin(), ids.end(), narrow) == ids.end()) ids.push_back(narrow);
  }
  const std::int64_t bos = integer_or(file, "tokenizer.ggml.bos_token_id", -1);
  if (bos >= 0 && bos < config.vocab_size) config.bos_token_id = static_cast<std::int32_t>(bos);
}

}  // namespace

RopeScaling rope_scaling_of(std::span<const float> divisors, double rope_theta) {
  RopeScaling scaling;
  const auto is_one = [](float divisor) { return divisor == 1.0f; };
  if (std::all_of(divisors.begin(), divisors.end(), is_one)) return scaling;
  scaling.kind = RopeScaling::Kind::llama3;
  scaling.factor = as_written(*std::max_element(divisors.begin(), divisors.end()));
  const auto pairs = static_cast<double>(divisors.size());
  for (std::size_t i = 0; i < divisors.size(); ++i) {
    const double frequency = std::pow(rope_theta, -static_cast<double>(i) / pairs);
    const double expected = llama3_divisor(scaling, frequency);
    const double difference = std::abs(static_cast<double>(divisors[i]) - expected);
    if (!(difference <= kDivisorTolerance * expected)) {
      throw ModelError(
          fmt::format("rope_freqs.weight[{}] is {}, but rope scaling llama3 with factor {}, low 1, "
                      "high 4, 8192 positions gives {}; other scalings are not supported",
                      i, divisors[i], scaling.factor, expected));
    }
  }
  return scaling;
}

ModelConfig gguf_config(io::GgufFile& file) {
  const std::string& architecture = file.text("general.architecture");
  if (architecture != "llama") {
    throw ModelError(fmt::format("general.architecture {} is not supported; supported: llama",
                                 io::quoted(architecture)));
  }
  if (integer_or(file, "llama.expert_count", 0) != 0) {
    throw ModelError("llama.expert_count is not 0; mixtures of experts are not supported");
  }
  ModelConfig config;
  config.hidden_size = file.integer("llama.embedding_length");
  config.intermediate_size = file.integer("llama.feed_forward_length");
  config.num_layers = file.integer("llama.block_count");
  config.num_heads = file.integer("llama.attention.head_count");
  config.num_kv_heads = integer_or(file, "llama.attention.head_count_kv", config.num_heads);
  const std::int64_t heads = std::max<std::int64_t>(config.num_heads, 1);
  config.head_dim = integer_or(file, "llama.attention.key_length", config.hidden_size / heads);
  expect_equal("llama.attention.value_length",
               integer_or(file, "llama.attention.value_length", config.head_dim), "head size",
               config.head_dim);
  expect_equal("llama.rope.dimension_count",
               integer_or(file, "llama.rope.dimension_count", config.head_dim), "head size",
               config.head_dim);
  config.max_position = file.integer("llama.context_length");
  config.rms_norm_eps = as_written(file.real("llama.attention.layer_norm_rms_epsilon"));
  config.rope_theta = real_or(file, "llama.rope.freq_base", 10000.0);
  config.tie_word_embeddings = find_tensor(file, "output.weight") == nullptr;
  config.attention_bias = find_tensor(file, "blk.0.attn_q.bias") != nullptr;
  config.mlp_bias = find_tensor(file, "blk.0.ffn_up.bias") != nullptr;
  read_vocabulary(file, config);
  validate(config);  // before sizes are used
  read_rope_scaling(file, config);
  validate(config);
  return config;
}

std::string gguf_config_text(const io::GgufFile& file) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const char* key : kKeys) {
    const io::GgufValue* value = file.find(key);
    if (value == nullptr) continue;
    if (const auto* number = std::get_if<std::int64_t>(value)) object[key] = *number;
    if (const auto* number = std::get_if<std::uint64_t>(value)) object[key] = *number;
    if (const auto* number = std::get_if<double>(value)) object[key] = as_written(*number);
    if (const auto* flag = std::get_if<bool>(value)) object[key] = *flag;
    if (const auto* text = std::get_if<std::string>(value)) object[key] = *text;
  }
  return object.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace penstock::model
