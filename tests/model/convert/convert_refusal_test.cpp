// Sources that are refused, each with one message that names file and reason.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "io/error.hpp"
#include "tests/io/foreign_files.hpp"
#include "tests/support/hf_folder.hpp"

namespace penstock::model {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using tests::refusal;
using tests::scratch;
using tests::Tensor;
using tests::tiny_config;
using tests::tiny_tensors;
using tests::write;
using tests::write_folder;

TEST(ConvertRefusal, AcceptsTheFolderThatTheOthersBreak) {
  const fs::path folder = scratch();
  write_folder(folder / "model", tiny_config(), tiny_tensors());
  EXPECT_EQ(refusal(folder / "model", folder / "out.h5"), "accepted");
}

TEST(ConvertRefusal, NamesMissingTensors) {
  const fs::path folder = scratch();
  auto tensors = tiny_tensors();
  tensors.erase(tensors.begin() + 2, tensors.begin() + 4);
  write_folder(folder / "model", tiny_config(), tensors);
  EXPECT_THAT(refusal(folder / "model", folder / "out.h5"),
              AllOf(HasSubstr("missing tensors: model.layers.0.self_attn.q_proj.weight, "
                              "model.layers.0.self_attn.k_proj.weight"),
                    HasSubstr((folder / "model").string())));
  EXPECT_FALSE(fs::exists(folder / "out.h5"));
}

TEST(ConvertRefusal, ShortensALongListOfMissingTensors) {
  const fs::path folder = scratch();
  auto config = tiny_config();
  config["num_hidden_layers"] = 8;
  write_folder(folder / "model", config, tiny_tensors());
  const std::string message = refusal(folder / "model", folder / "out.h5");
  EXPECT_THAT(message, HasSubstr("(63 in all)"));
  EXPECT_LT(message.size(), 600u);
}

TEST(ConvertRefusal, AMissingHeadIsNotTakenForATiedOne) {
  const fs::path folder = scratch();
  auto tensors = tiny_tensors();
  tensors.pop_back();
  write_folder(folder / "model", tiny_config(), tensors);
  EXPECT_THAT(refusal(folder / "model", folder / "out.h5"),
              HasSubstr("missing tensors: lm_head.weight"));
  auto config = tiny_config();
  config["tie_word_embeddings"] = true;
  write_folder(folder / "model", config, tensors);
  EXPECT_EQ(refusal(folder / "model", folder / "out.h5"), "accepted");
}

TEST(ConvertRefusal, NamesSurplusTensors) {
  const fs::path folder = scratch();
  auto tensors = tiny_tensors();
  tensors.push_back({"model.layers.0.self_attn.q_proj.bias", {32}});
  tensors.push_back({"model.layers.1.mlp.up_proj.weight", {64, 32}});
  write_folder(folder / "model", tiny_config(), tensors);
  EXPECT_THAT(refusal(folder / "model", folder / "out.h5"),
              AllOf(HasSubstr("no place for"), HasSubstr("model.layers.0.self_attn.q_proj.bias"),
                    HasSubstr("model.layers.1.mlp.up_proj.weight")));
}

TEST(ConvertRefusal, NamesMisshapenTensors) {
  const fs::path folder = scratch();
  auto tensors = tiny_tensors();
  tensors[3].shape = {32, 16};
  write_folder(folder / "model", tiny_config(), tensors);
  EXPECT_THAT(refusal(folder / "model", folder / "out.h5"),
              HasSubstr("misshapen tensors: model.layers.0.self_attn.k_proj.weight is [32, 16], "
                        "the config asks for [16, 32]"));
}

TEST(ConvertRefusal, NamesTypesThatCannotBeReadBeforeWriting) {
  const fs::path folder = scratch();
  auto tensors = tiny_tensors();
  tensors[8].dtype = "I8";
  write_folder(folder / "model", tiny_config(), tensors);
  bool wrote = false;
  try {
    convert_model((folder / "model").string(), (folder / "out.h5").string(), {},
                  [&](std::uint64_t, std::uint64_t) { wrote = true; });
    FAIL() << "accepted";
  } catch (const io::FileError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("mlp.up_proj.weight"), HasSubstr("I8")));
  }
  EXPECT_FALSE(wrote);
}

TEST(ConvertRefusal, NamesTheConfigFileAndKey) {
  const fs::path folder = scratch();
  auto config = tiny_config();
  config["num_hidden_layers"] = 1000000000;
  write_folder(folder / "model", config, tiny_tensors());
  EXPECT_THAT(refusal(folder / "model", folder / "out.h5"),
              AllOf(HasSubstr("model/config.json: "), HasSubstr("num_layers: 1000000000 is out")));
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  return names;
}

// A checkpoint whose tokenizer no run could use would be found out after hours.
TEST(ConvertRefusal, NamesATokenizerThatNoRunCouldUse) {
  const fs::path folder = scratch();
  write_folder(folder / "model", tiny_config(), tiny_tensors());
  const auto with = [&](const std::string& tokenizer) {
    write(folder / "model" / "tokenizer.json", tokenizer);
    const std::string message = refusal(folder / "model", folder / "out.h5");
    EXPECT_THAT(names_in(folder), testing::ElementsAre("model"));
    EXPECT_THAT(message, testing::StartsWith((folder / "model/tokenizer.json").string() + ": "));
    return message;
  };
  EXPECT_THAT(with("{}"), HasSubstr("tokenizer.json has no 'model'"));
  EXPECT_THAT(with("{"), HasSubstr("broken JSON at byte 2"));
  EXPECT_THAT(with(""), HasSubstr("tokenizer.json"));
  EXPECT_THAT(with(std::string(100'000, '[') + std::string(100'000, ']')),
              HasSubstr("nested deeper than 64"));
  EXPECT_THAT(with(R"({"model": {"type": "Unigram", "vocab": [["a", 0.5]]}})"),
              HasSubstr("the model 'Unigram' is not supported"));
  EXPECT_THAT(with(R"({"model": {"type": "BPE", "vocab": {"a": 300}, "merges": []}})"),
              HasSubstr("the tokenizer has 301 tokens, the model's vocabulary only 300"));
  EXPECT_THAT(with(R"({"model": {"type": "BPE", "vocab": {"a": 2147483647}, "merges": []}})"),
              HasSubstr("has 2147483648 tokens"));
  EXPECT_THAT(with(R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [
             {"id": 1, "content": "<s>", "special": true, "single_word": false, "lstrip": false,
              "rstrip": false, "normalized": false}], "normalizer": {"type": "Precompiled"}})"),
              HasSubstr("the normalizer 'Precompiled' is not supported"));

  write(folder / "model" / "tokenizer.json",
        R"({"model": {"type": "BPE", "vocab": {"a": 299}, "merges": []}})");
  EXPECT_EQ(refusal(folder / "model", folder / "out.h5"), "accepted");
}

// --- GGUF files whose tokenizer is at fault
// -------------------------------------------------------

using io::testing::bytes_of;
using io::testing::Gguf;

struct Vocabulary {
  std::string model = "gpt2";
  std::string pre = "gpt-2";
  std::vector<std::string> tokens = {"a", "b", "ab"};
  std::vector<std::string> merges = {"a b"};
};

std::string texts(const std::vector<std::string>& values) {
  std::string bytes;
  for (const std::string& value : values) bytes += Gguf::text(value);
  return bytes;
}

// A model of four tokens; all but the embedding is missing, which is the last thing to be seen.
std::string gguf_with(const Vocabulary& vocabulary) {
  const auto number = [](std::uint32_t value) { return bytes_of(value); };
  return Gguf(1, 11)
      .key("general.architecture", Gguf::string, Gguf::text("llama"))
      .key("llama.block_count", Gguf::u32, number(1))
      .key("llama.context_length", Gguf::u32, number(64))
      .key("llama.embedding_length", Gguf::u32, number(32))
      .key("llama.feed_forward_length", Gguf::u32, number(64))
      .key("llama.attention.head_count", Gguf::u32, number(4))
      .key("llama.attention.layer_norm_rms_epsilon", Gguf::f32, bytes_of(1e-5f))
      .key("tokenizer.ggml.model", Gguf::string, Gguf::text(vocabulary.model))
      .key("tokenizer.ggml.pre", Gguf::string, Gguf::text(vocabulary.pre))
      .array_key("tokenizer.ggml.tokens", Gguf::string, vocabulary.tokens.size(),
                 texts(vocabulary.tokens))
      .array_key("tokenizer.ggml.merges", Gguf::string, vocabulary.merges.size(),
                 texts(vocabulary.merges))
      .tensor("token_embd.weight", {32, 4}, 0, 0)
      .data(std::string(512, '\0'))
      .bytes();
}

TEST(ConvertRefusal, NamesAGgufWhoseTokenizerNoRunCouldUse) {
  const fs::path folder = scratch();
  const fs::path path = folder / "m.gguf";
  const auto with = [&](const Vocabulary& vocabulary) {
    write(path, gguf_with(vocabulary));
    const std::string message = refusal(path, folder / "out.h5");
    EXPECT_THAT(names_in(folder), testing::ElementsAre("m.gguf"));
    // Once: who wraps a message must not name the file again.
    EXPECT_EQ(message.rfind(path.string()), 0u) << message;
    return message.substr(path.string().size());
  };
  EXPECT_THAT(with({}), HasSubstr("missing tensors"));  // the tokenizer is accepted
  Vocabulary v;
  v.model = "llama";
  EXPECT_THAT(with(v), testing::StartsWith(": the tokenizer 'llama' (tokenizer.ggml.model) is not "
                                           "supported (known: gpt2, which is byte-level BPE)"));
  v = {};
  v.pre = "tekken";
  EXPECT_THAT(with(v), testing::StartsWith(": the pre-tokenizer 'tekken' (tokenizer.ggml.pre)"));
  v = {};
  v.merges = {"a c"};
  EXPECT_THAT(with(v), testing::StartsWith(": tokenizer: merge 0 ('a' and 'c') needs 'c'"));
  v = {};
  v.merges = {"ab"};
  EXPECT_EQ(with(v), ": merge 0 is 'ab', not two tokens and a space");
  v = {};
  v.tokens = {"a", "b", "ab", "c", "d"};
  EXPECT_EQ(with(v), ": tokenizer.ggml.tokens has 5 tokens, but token_embd.weight only 4 rows");
  v = {};
  v.tokens = {"a\n", "b", "a\n"};
  EXPECT_EQ(with(v), ": token 2 is 'a\\x0a', like one before it");
}

TEST(ConvertRefusal, SaysWhatIsNotThere) {
  const fs::path folder = scratch();
  EXPECT_THAT(refusal(folder / "nothing", folder / "out.h5"), HasSubstr("no such file or folder"));
  write(folder / "text", "hello");
  EXPECT_THAT(refusal(folder / "text", folder / "out.h5"),
              HasSubstr("neither a Hugging Face folder nor a GGUF file"));
  fs::create_directories(folder / "empty");
  EXPECT_THAT(refusal(folder / "empty", folder / "out.h5"), HasSubstr("config.json"));
  write_folder(folder / "model", tiny_config(), tiny_tensors());
  EXPECT_THAT(refusal(folder / "model", folder / "absent" / "out.h5"), HasSubstr("absent"));
  fs::remove(folder / "model" / "tokenizer.json");
  EXPECT_THAT(refusal(folder / "model", folder / "out.h5"), HasSubstr("tokenizer.json"));
}

TEST(ConvertRefusal, ReadsTheFreeSpaceFirst) {
  const fs::path folder = scratch();
  if (fs::space(folder).available > 4000000000000) GTEST_SKIP() << "over 4 TB free in " << folder;
  auto config = tiny_config();  // embedding and head of 2.2 TB each, in a file that is a hole
  config["vocab_size"] = 1 << 22;
  config["hidden_size"] = 1 << 18;
  config["head_dim"] = 8;
  auto tensors = tiny_tensors();
  for (Tensor& tensor : tensors) {
    for (std::uint64_t& extent : tensor.shape) {
      if (extent == 300) extent = 1 << 22;
    }
    const bool is_out = tensor.name.find("o_proj") != std::string::npos ||
                        tensor.name.find("down_proj") != std::string::npos;
    if (tensor.shape.size() == 1 || is_out) {
      tensor.shape[0] = 1 << 18;
    } else {
      tensor.shape[1] = 1 << 18;
    }
  }
  write_folder(folder / "model", config, tensors);
  EXPECT_THAT(refusal(folder / "model", folder / "out.h5"), HasSubstr("GB free"));
  EXPECT_FALSE(fs::exists(folder / "out.h5"));
}

}  // namespace
}  // namespace penstock::model
