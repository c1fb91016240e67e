#include "model/convert/convert.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/checkpoint.hpp"
#include "io/error.hpp"
#include "io/file.hpp"
#include "model/config.hpp"
#include "model/convert/gguf_config.hpp"
#include "model/error.hpp"
#include "model/text/tokenizer_files.hpp"
#include "tests/support/hf_folder.hpp"

namespace penstock::model {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using tests::refusal;
using tests::scratch;
using tests::tiny_config;
using tests::tiny_tensors;
using tests::write;
using tests::write_folder;

// --- Against models written by safetensors and gguf ---------------------------------------------

bool write_case(const std::string& name, const fs::path& folder) {
  const std::string command = std::string(PENSTOCK_TEST_PYTHON) + " " + PENSTOCK_SOURCE_DIR +
                              "/tests/reference/convert_models.py " + name + " " + folder.string();
  return std::system(command.c_str()) == 0;
}

#define PENSTOCK_NEEDS_PYTHON()                                                        \
  if (std::strlen(PENSTOCK_TEST_PYTHON) == 0) {                                        \
    GTEST_SKIP() << "PENSTOCK_TEST_PYTHON is not set: no Python to write models with"; \
  }

fs::path model_of(const fs::path& folder) {
  return fs::exists(folder / "model.gguf") ? folder / "model.gguf" : folder / "model";
}

class ConvertCase : public testing::TestWithParam<const char*> {};

TEST_P(ConvertCase, HoldsTheSourcesNumbers) {
  PENSTOCK_NEEDS_PYTHON();
  const fs::path folder = scratch();
  const std::string name = GetParam();
  ASSERT_TRUE(write_case(name, folder));
  const json expected = json::parse(io::read_text((folder / "expected.json").string()));
  const std::string numbers = io::read_text((folder / "expected.bin").string());

  ConvertOptions options;
  options.created_by = "test";
  if (name.find("_to_") != std::string::npos) {
    options.dtype = io::parse_dtype(expected["dtype"].get<std::string>());
  }
  const std::string destination = (folder / "out.h5").string();
  std::uint64_t last = 0;
  std::uint64_t total = 0;
  convert_model(model_of(folder).string(), destination, options,
                [&](std::uint64_t done, std::uint64_t all) {
                  EXPECT_GT(done, last);
                  last = done;
                  total = all;
                });
  EXPECT_EQ(last, numbers.size());
  EXPECT_EQ(total, numbers.size());

  const io::CheckpointReader reader(destination);
  EXPECT_EQ(io::to_string(reader.header().dtype), expected["dtype"].get<std::string>());
  EXPECT_EQ(reader.header().created_by, "test");
  ASSERT_EQ(reader.tensors().size(), expected["tensors"].size());
  for (std::size_t i = 0; i < reader.tensors().size(); ++i) {
    const io::TensorInfo& tensor = reader.tensors()[i];
    const json& want = expected["tensors"][i];
    EXPECT_EQ(tensor.name, want["name"].get<std::string>());
    EXPECT_EQ(io::to_string(tensor.dtype), want["dtype"].get<std::string>()) << tensor.name;
    EXPECT_EQ(tensor.shape, want["shape"].get<std::vector<std::uint64_t>>()) << tensor.name;
    ASSERT_EQ(tensor.size_bytes, want["size"].get<std::uint64_t>()) << tensor.name;
    std::vector<std::byte> bytes(tensor.size_bytes);
    reader.read(tensor, bytes);
    EXPECT_EQ(
        std::memcmp(bytes.data(), numbers.data() + want["offset"].get<std::size_t>(), bytes.size()),
        0)
        << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Convert, ConvertCase,
                         testing::Values("hf_bf16", "hf_f16_sharded", "hf_f32_biases",
                                         "hf_f32_to_bf16", "hf_f32_to_f16", "hf_tied",
                                         "hf_tied_with_head", "gguf_f32_biases", "gguf_f16",
                                         "gguf_bf16_tied", "gguf_q8_0", "gguf_q4_0", "gguf_q4_1"),
                         [](const auto& param) { return std::string(param.param); });

TEST(Convert, KeepsConfigAndTextOfAFolder) {
  PENSTOCK_NEEDS_PYTHON();
  const fs::path folder = scratch();
  ASSERT_TRUE(write_case("hf_tied", folder));
  convert_model((folder / "model").string(), (folder / "out.h5").string(), {}, {});
  const io::CheckpointReader reader((folder / "out.h5").string());
  const ModelConfig config = from_attributes(reader.header().config);
  EXPECT_EQ(config.hidden_size, 96);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(5, 9));
  EXPECT_EQ(config.bos_token_id, -1);
  EXPECT_EQ(reader.header().config_text,
            io::read_text((folder / "model" / "config.json").string()));
  const TokenizerFiles files = read_tokenizer((folder / "out.h5").string());
  EXPECT_EQ(files.tokenizer_json, io::read_text((folder / "model" / "tokenizer.json").string()));
  EXPECT_EQ(files.chat_template, "right");
  EXPECT_EQ(json::parse(files.generation_config)["temperature"], 0.25);

  write(folder / "model" / "chat_template.jinja", "from its own file");
  EXPECT_EQ(read_tokenizer((folder / "model").string()).chat_template, "from its own file");
}

TEST(Convert, ReadsTheConfigOfAGguf) {
  PENSTOCK_NEEDS_PYTHON();
  const fs::path folder = scratch();
  ASSERT_TRUE(write_case("gguf_llama3", folder));
  convert_model((folder / "model.gguf").string(), (folder / "out.h5").string(), {}, {});
  const io::CheckpointReader reader((folder / "out.h5").string());
  const ModelConfig config = from_attributes(reader.header().config);
  EXPECT_EQ(config.hidden_size, 96);
  EXPECT_EQ(config.intermediate_size, 160);
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.num_heads, 4);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.vocab_size, 300);
  EXPECT_EQ(config.max_position, 512);
  EXPECT_EQ(config.rms_norm_eps, 1e-5) << "the f32 of the file, as it was once written";
  EXPECT_EQ(config.rope_theta, 500000.0);
  EXPECT_EQ(config.rope_scaling.kind, RopeScaling::Kind::llama3);
  EXPECT_EQ(config.rope_scaling.factor, 8.0);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(259, 260));
  EXPECT_EQ(config.bos_token_id, 258);
  EXPECT_EQ(json::parse(reader.header().config_text)["llama.block_count"], 2);
  EXPECT_EQ(read_tokenizer((folder / "model.gguf").string()).chat_template, "template of the file");
}

TEST(Convert, RefusesRopeDivisorsOfAnotherFormula) {
  PENSTOCK_NEEDS_PYTHON();
  const fs::path folder = scratch();
  ASSERT_TRUE(write_case("gguf_odd_divisors", folder));
  EXPECT_THAT(refusal(folder / "model.gguf", folder / "out.h5"),
              AllOf(HasSubstr("model.gguf: rope_freqs.weight["), HasSubstr("not supported")));
}

// The divisors of Llama-3.2-1B (theta 500000, head size 64, factor 32), some of them, by the
// formula in numpy, double precision: wavelength 2 pi 500000^(i/32), smooth = (8192 / length - 1)
// / 3.
TEST(Convert, RecoversPublishedLlama3Scaling) {
  std::vector<float> divisors(32);
  for (std::size_t i = 0; i < 32; ++i) divisors[i] = i < 15 ? 1.0f : 32.0f;
  divisors[15] = 1.6513292f;
  divisors[16] = 3.2922621f;
  divisors[17] = 9.6667290f;
  const RopeScaling scaling = rope_scaling_of(divisors, 500000.0);
  EXPECT_EQ(scaling.kind, RopeScaling::Kind::llama3);
  EXPECT_EQ(scaling.factor, 32.0);
  divisors[16] *= 1.001f;
  EXPECT_THROW(rope_scaling_of(divisors, 500000.0), ModelError);
  EXPECT_EQ(rope_scaling_of(std::vector<float>(32, 1.0f), 10000.0).kind, RopeScaling::Kind::none);
}

// --- Interruptions and memory -------------------------------------------------------------------

TEST(Convert, LeavesNothingWhenItFails) {
  const fs::path folder = scratch();
  write_folder(folder / "model", tiny_config(), tiny_tensors());
  fs::create_directories(folder / "out");
  EXPECT_THROW(convert_model((folder / "model").string(), (folder / "out" / "a.h5").string(), {},
                             [](std::uint64_t, std::uint64_t) { throw ModelError("stop"); }),
               ModelError);
  EXPECT_TRUE(fs::is_empty(folder / "out"));
}

TEST(Convert, KilledLeavesNothingUnderTheFinalName) {
  const fs::path folder = scratch();
  write_folder(folder / "model", tiny_config(), tiny_tensors());
  const std::string destination = (folder / "out.h5").string();
  for (const int signal : {SIGKILL, SIGTERM, SIGINT}) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
      try {
        convert_model((folder / "model").string(), destination, {},
                      [&](std::uint64_t, std::uint64_t) {
                        if (::write(ready[1], "x", 1) == 1) pause();
                      });
      } catch (...) {
      }
      _exit(0);
    }
    close(ready[1]);
    char byte = 0;
    EXPECT_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    kill(child, signal);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
    EXPECT_FALSE(fs::exists(destination));
  }
  EXPECT_EQ(refusal(folder / "model", destination), "accepted") << "what is left is in the way";
  EXPECT_TRUE(fs::exists(destination));
}

std::uint64_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "RssAnon:") continue;
    std::uint64_t kib = 0;
    status >> kib;
    return kib << 10;
  }
  return 0;
}

// An embedding and a head of 164 MB each, read as 328 MB of f32: neither fits below the limit.
TEST(Convert, MemoryStaysBounded) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own memory would be counted";
#endif
  const fs::path folder = scratch();
  auto config = tiny_config();
  config["vocab_size"] = 40000;
  config["hidden_size"] = 2048;
  config["head_dim"] = 8;
  auto tensors = tiny_tensors();
  for (tests::Tensor& tensor : tensors) {
    for (std::uint64_t& extent : tensor.shape) {
      if (extent == 300) extent = 40000;
    }
    const bool is_out = tensor.name.find("o_proj") != std::string::npos ||
                        tensor.name.find("down_proj") != std::string::npos;
    tensor.shape[tensor.shape.size() == 1 || is_out ? 0 : 1] = 2048;
  }
  write_folder(folder / "model", config, tensors);
  if (fs::space(folder).available < (std::uint64_t{1} << 30)) {
    GTEST_SKIP() << "less than 1 GiB free in " << folder;
  }
  std::uint64_t most = 0;
  convert_model((folder / "model").string(), (folder / "out.h5").string(), {},
                [&](std::uint64_t, std::uint64_t) { most = std::max(most, anonymous_bytes()); });
  EXPECT_GT(most, 0u);
  EXPECT_LT(most, std::uint64_t{128} << 20);
  RecordProperty("most_anonymous_mib", static_cast<int>(most >> 20));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace penstock::model
