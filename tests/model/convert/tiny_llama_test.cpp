// Tiny Llama models of every kind that the config describes, from a Hugging Face folder to logits,
// against transformers in f32. tests/reference/make_tiny_llama.py made the data.

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint.hpp"
#include "model/config.hpp"
#include "model/convert/convert.hpp"
#include "model/stage.hpp"
#include "model/weights.hpp"
#include "tests/support/hf_folder.hpp"
#include "tests/support/reference_logits.hpp"
#include "tests/support/run_model.hpp"

namespace penstock::model {
namespace {

using penstock::tests::ModelRunner;

std::uint64_t name_hash(std::string_view name) {
  std::uint64_t value = 0xCBF29CE484222325u;
  for (const char c : name) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return value;
}

// Element `index` of a tensor; make_tiny_llama.py's `weight`.
float weight(const std::string& name, std::uint64_t index) {
  std::uint64_t z = name_hash(name) + (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  z ^= z >> 31;
  const auto value =
      static_cast<float>(static_cast<std::int64_t>(z >> 40) - (std::int64_t{1} << 23)) / 0x1p23f;
  if (name.find("norm") != std::string::npos) return 1.0f + value * 0.25f;
  return name.find("embed_tokens") != std::string::npos ? value : value * 0.25f;
}

// The folder that transformers would have saved.
void write_model(const std::filesystem::path& folder, const nlohmann::json& config_json) {
  const ModelConfig config = parse_hf_config(config_json.dump());
  nlohmann::json header = nlohmann::json::object();
  std::string data;
  for (const WeightSpec& spec : weight_specs(config)) {
    if (config.tie_word_embeddings && spec.group == WeightGroup::head) continue;
    std::uint64_t count = 1;
    for (const std::uint64_t extent : spec.shape) count *= extent;
    const std::uint64_t begin = data.size();
    for (std::uint64_t i = 0; i < count; ++i) {
      const float value = weight(spec.hf_name, i);
      data.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    header[spec.hf_name] = {
        {"dtype", "F32"}, {"shape", spec.shape}, {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const std::uint64_t length = text.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  tests::write(folder / "config.json", config_json.dump());
  tests::write(folder / "tokenizer.json", tests::kTinyTokenizer);
  tests::write(folder / "model.safetensors", file + text + data);
}

class TinyLlama : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string name = std::string("tiny_llama/") + GetParam();
    const auto folder = tests::scratch();
    const nlohmann::json config = penstock::tests::read_reference(name + ".json").at("config");
    write_model(folder, config);
    path_ = (folder / "model.h5").string();
    convert_model(folder.string(), path_, {}, {});
    prompts_ = penstock::tests::read_reference_logits(name, config.at("vocab_size"));
  }

  void compare(const StageOptions& options, int stages, float tolerance) const {
    const io::CheckpointReader checkpoint(path_);
    ModelRunner runner(checkpoint, stages, options, 8);
    penstock::tests::LogitsCheck check;
    for (const std::size_t chunk : {0u, 1u, 7u, 32u, 33u}) {
      SCOPED_TRACE(testing::Message() << "chunks of " << chunk);
      check.compare(prompts_, penstock::tests::logits_by_chunks(runner, prompts_, chunk),
                    tolerance);
    }
    EXPECT_GE(check.rows, 50u);
    RecordProperty("largest_difference", std::to_string(check.largest));
  }

  static StageOptions options_of(io::DType dtype) {
    StageOptions options;
    options.dtype = dtype;
    options.kv_dtype = dtype;
    options.threads = 2;
    options.max_rows = 80;
    return options;
  }

 private:
  std::string path_;
  std::vector<penstock::tests::ReferencePrompt> prompts_;
};

TEST_P(TinyLlama, LogitsAreThoseOfTransformersInF32) {
  compare(options_of(io::DType::f32), 1, 1e-4f);
}

TEST_P(TinyLlama, LogitsAreThoseOfTransformersInF32OverThreeStages) {
  compare(options_of(io::DType::f32), 3, 1e-4f);
}

TEST_P(TinyLlama, Bf16StaysClose) { compare(options_of(io::DType::bf16), 1, 6e-2f); }

INSTANTIATE_TEST_SUITE_P(Models, TinyLlama,
                         testing::Values("mha_untied", "gqa_wide_heads", "mqa_tied", "biases",
                                         "rope_linear", "rope_llama3"),
                         [](const auto& model) { return std::string(model.param); });

}  // namespace
}  // namespace penstock::model
