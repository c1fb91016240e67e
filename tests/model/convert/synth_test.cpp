#include "model/convert/synth.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/checkpoint.hpp"
#include "io/error.hpp"
#include "model/config.hpp"
#include "model/convert/byte_tokenizer.hpp"
#include "model/convert/random_weights.hpp"
#include "model/convert/synth_presets.hpp"
#include "model/error.hpp"
#include "model/text/tokenizer.hpp"
#include "model/text/tokenizer_files.hpp"
#include "tests/support/hf_folder.hpp"

namespace penstock::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using tests::scratch;

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;

std::string tiny_config(const fs::path& folder, bool tied) {
  const json config = {{"model_type", "llama"},      {"hidden_size", 256},
                       {"intermediate_size", 512},   {"num_hidden_layers", 8},
                       {"num_attention_heads", 4},   {"num_key_value_heads", 2},
                       {"vocab_size", 1000},         {"max_position_embeddings", 64},
                       {"tie_word_embeddings", tied}};
  const std::string path = (folder / "config.json").string();
  std::ofstream(path) << config.dump();
  return path;
}

std::vector<float> floats(const io::CheckpointReader& reader, const char* name) {
  const io::TensorInfo* tensor = reader.find(name);
  EXPECT_NE(tensor, nullptr) << name;
  EXPECT_EQ(tensor->dtype, io::DType::f32);
  std::vector<float> values(tensor->size_bytes / sizeof(float));
  reader.read(*tensor, std::as_writable_bytes(std::span(values)));
  return values;
}

double deviation(const std::vector<float>& values) {
  double sum = 0;
  double squares = 0;
  for (const float value : values) {
    sum += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  const auto count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count / std::sqrt(squares / count), 0.0, 0.02);
  return std::sqrt(squares / count);
}

// SplitMix64 from state 1234567 gives 6457827717110365317, 3203168211198807973,
// 9817491932198370423 (Rosetta Code); their 16-bit parts add up to 205122, 99568 and 157068.
TEST(RandomWeights, IsSplitMix64) {
  const float unit = 1.0f / std::sqrt(4294967295.0f / 3.0f);
  std::vector<float> values(3);
  fill_random(1234567 + kGolden, 0, 1.0f, values);
  EXPECT_FLOAT_EQ(values[0], (205122 - 131070) * unit);
  EXPECT_FLOAT_EQ(values[1], (99568 - 131070) * unit);
  EXPECT_FLOAT_EQ(values[2], (157068 - 131070) * unit);
}

TEST(RandomWeights, AnyOrderGivesTheSame) {
  std::vector<float> whole(1000);
  fill_random(42, 0, 0.5f, whole);
  std::vector<float> part(100);
  fill_random(42, 333, 0.5f, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 333));
  fill_random(43, 333, 0.5f, part);
  EXPECT_FALSE(std::equal(part.begin(), part.end(), whole.begin() + 333));
}

// The published parameter counts (huggingface.co); SmolLM2's counts its tied embedding once.
TEST(Synth, PresetsHaveThePublishedSizes) {
  const auto count = [](const char* name) {
    return parameter_count(parse_hf_config(preset_config(name).value()));
  };
  EXPECT_EQ(count("smollm2-135m"), 134515008);
  EXPECT_EQ(count("llama-3.1-8b"), 8030261248);
  EXPECT_EQ(count("llama-3.1-70b"), 70553706496);
  EXPECT_EQ(count("llama-3.1-405b"), 405853388800);
  for (const std::string& name : synth_presets()) EXPECT_TRUE(preset_config(name)) << name;
  EXPECT_FALSE(preset_config("gpt-5"));
}

TEST(Synth, ScalesFollowFanIn) {
  const fs::path folder = scratch();
  SynthOptions options;
  options.dtype = io::DType::f32;
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  synthesize(tiny_config(folder, false), (folder / "out.h5").string(), options,
             [&](std::uint64_t bytes, std::uint64_t all) {
               done = bytes;
               total = all;
             });
  EXPECT_GT(total, 0u);
  EXPECT_EQ(done, total);
  const io::CheckpointReader reader((folder / "out.h5").string());
  EXPECT_NEAR(deviation(floats(reader, "/embed/weight")), 1.0, 0.01);
  EXPECT_NEAR(deviation(floats(reader, "/layers/0003/attn/q")), 1.0 / 16, 0.001);
  EXPECT_NEAR(deviation(floats(reader, "/layers/0003/mlp/up")), 1.0 / 16, 0.001);
  EXPECT_NEAR(deviation(floats(reader, "/layers/0003/attn/o")), 1.0 / 64, 0.0003);
  EXPECT_NEAR(deviation(floats(reader, "/layers/0003/mlp/down")), 1.0 / 16 / std::sqrt(32.0),
              0.0002);
  EXPECT_NEAR(deviation(floats(reader, "/head/weight")), 0.25, 0.003);
  for (const float value : floats(reader, "/layers/0003/mlp/norm")) ASSERT_EQ(value, 1.0f);
  const auto first = floats(reader, "/layers/0003/attn/q");
  EXPECT_NE(first, floats(reader, "/layers/0004/attn/q"));
}

// A decoder's own arithmetic on these weights, without attention: with norms the MLP path alone
// shows whether the residual stream stays of order one.
TEST(Synth, ActivationsStayOfOrderOne) {
  const fs::path folder = scratch();
  SynthOptions options;
  options.dtype = io::DType::f32;
  synthesize(tiny_config(folder, false), (folder / "out.h5").string(), options, {});
  const io::CheckpointReader reader((folder / "out.h5").string());
  const auto product = [](const std::vector<float>& matrix, const std::vector<float>& x) {
    std::vector<float> y(matrix.size() / x.size(), 0.0f);
    for (std::size_t row = 0; row < y.size(); ++row) {
      for (std::size_t i = 0; i < x.size(); ++i) y[row] += matrix[row * x.size() + i] * x[i];
    }
    return y;
  };
  const auto rms = [](const std::vector<float>& x) {
    float squares = 0;
    for (const float value : x) squares += value * value;
    return std::sqrt(squares / static_cast<float>(x.size()));
  };
  const auto embedding = floats(reader, "/embed/weight");
  std::vector<float> x(embedding.begin(), embedding.begin() + 256);
  for (int layer = 0; layer < 8; ++layer) {
    const std::string prefix = "/layers/000" + std::to_string(layer);
    std::vector<float> normed = x;
    for (float& value : normed) value /= rms(x);
    auto gate = product(floats(reader, (prefix + "/mlp/gate").c_str()), normed);
    const auto up = product(floats(reader, (prefix + "/mlp/up").c_str()), normed);
    for (std::size_t i = 0; i < gate.size(); ++i) {
      gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
    }
    const auto down = product(floats(reader, (prefix + "/mlp/down").c_str()), gate);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += down[i];
  }
  EXPECT_GT(rms(x), 0.7f);
  EXPECT_LT(rms(x), 1.5f);
  std::vector<float> normed = x;
  for (float& value : normed) value /= rms(x);
  const auto logits = product(floats(reader, "/head/weight"), normed);
  EXPECT_NEAR(rms(logits), 4.0f, 0.5f);
}

TEST(Synth, ATiedHeadIsACopy) {
  const fs::path folder = scratch();
  SynthOptions options;
  options.dtype = io::DType::f32;
  synthesize(tiny_config(folder, true), (folder / "out.h5").string(), options, {});
  const io::CheckpointReader reader((folder / "out.h5").string());
  EXPECT_TRUE(from_attributes(reader.header().config).tie_word_embeddings);
  EXPECT_EQ(floats(reader, "/embed/weight"), floats(reader, "/head/weight"));
}

TEST(Synth, TheSeedDecides) {
  const fs::path folder = scratch();
  const std::string shape = tiny_config(folder, false);
  const auto digest = [&](const char* name, std::uint64_t seed) {
    SynthOptions options;
    options.seed = seed;
    synthesize(shape, (folder / name).string(), options, {});
    return io::CheckpointReader((folder / name).string()).digest();
  };
  const std::string first = digest("a.h5", 1);
  EXPECT_EQ(first, digest("b.h5", 1));
  EXPECT_NE(first, digest("c.h5", 2));
}

TEST(Synth, NoDataHoldsShapesOnly) {
  const fs::path folder = scratch();
  const std::string path = (folder / "405b.h5").string();
  SynthOptions options;
  options.no_data = true;
  synthesize("llama-3.1-405b", path, options, {});
  EXPECT_LT(fs::file_size(path), 16u << 20);
  const io::CheckpointReader reader(path);
  EXPECT_TRUE(reader.header().no_data);
  EXPECT_EQ(reader.tensors().size(), 3u + 126 * 9);
  EXPECT_THAT(reader.find("/layers/0125/mlp/down")->shape, ElementsAre(16384u, 53248u));
  EXPECT_EQ(from_attributes(reader.header().config).num_kv_heads, 8);
}

TEST(Synth, OwnTokenizerGivesTheSpecialIds) {
  const fs::path folder = scratch();
  SynthOptions options;
  options.no_data = true;
  synthesize("smollm2-135m", (folder / "out.h5").string(), options, {});
  const io::CheckpointReader reader((folder / "out.h5").string());
  const ModelConfig config = from_attributes(reader.header().config);
  EXPECT_EQ(config.bos_token_id, 256);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(257));
  const TokenizerFiles files = read_tokenizer((folder / "out.h5").string());
  const Tokenizer tokenizer = Tokenizer::from_json(files.tokenizer_json);
  EXPECT_EQ(tokenizer.vocab_size(), 49152u);
  EXPECT_THAT(tokenizer.encode("A b\n<|eos|>", false), ElementsAre(65, 32, 98, 10, 257));
}

TEST(Synth, TakesTheTokenizerOfAModel) {
  const fs::path folder = scratch();
  SynthOptions options;
  options.no_data = true;
  synthesize("smollm2-135m", (folder / "a.h5").string(), options, {});
  options.tokenizer = (folder / "a.h5").string();
  synthesize("llama-3.1-8b", (folder / "b.h5").string(), options, {});
  EXPECT_EQ(read_tokenizer((folder / "a.h5").string()).tokenizer_json,
            read_tokenizer((folder / "b.h5").string()).tokenizer_json);
  const io::CheckpointReader reader((folder / "b.h5").string());
  EXPECT_EQ(from_attributes(reader.header().config).bos_token_id, 128000);
  try {
    synthesize(tiny_config(folder, false), (folder / "c.h5").string(), options, {});
    FAIL() << "accepted";
  } catch (const ModelError& error) {
    EXPECT_THAT(error.what(), HasSubstr("49152 tokens, the model's vocabulary only 1000"));
  }
}

TEST(Synth, RefusesUnknownShapes) {
  const fs::path folder = scratch();
  const auto refusal = [&](const std::string& shape) -> std::string {
    try {
      synthesize(shape, (folder / "out.h5").string(), {}, {});
    } catch (const std::exception& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(refusal("llama-9"), HasSubstr("smollm2-135m, llama-3.1-8b, llama-3.1-70b"));
  std::ofstream(folder / "config.json") << R"({"model_type": "llama", "hidden_size": -1})";
  EXPECT_THAT(refusal((folder / "config.json").string()), HasSubstr("config.json: model config: "));
  json small = json::parse(preset_config("smollm2-135m").value());
  small["vocab_size"] = 100;
  std::ofstream(folder / "config.json") << small.dump();
  EXPECT_THAT(refusal((folder / "config.json").string()), HasSubstr("vocab_size 100"));
  EXPECT_FALSE(fs::exists(folder / "out.h5"));
}

// The tokenizers library's own reading of the file.
TEST(ByteTokenizer, LoadsWithTheReferenceLibrary) {
  if (std::strlen(PENSTOCK_TEST_PYTHON) == 0) {
    GTEST_SKIP() << "PENSTOCK_TEST_PYTHON is not set: no tokenizers library to load with";
  }
  const fs::path folder = scratch();
  const std::string path = (folder / "tokenizer.json").string();
  std::ofstream(path) << byte_tokenizer_json(400);
  const std::string command = std::string(PENSTOCK_TEST_PYTHON) + " " + PENSTOCK_SOURCE_DIR +
                              "/tests/reference/check_byte_tokenizer.py " + path;
  FILE* pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) output += static_cast<char>(c);
  EXPECT_EQ(pclose(pipe), 0);
  EXPECT_EQ(output,
            "400\n"
            "71 114 195 188 195 159 32 256 10\n"  // the UTF-8 bytes, <|bos|>, newline
            "True\n"
            " t300 t301\n");
}

}  // namespace
}  // namespace penstock::model
