// Sources that are refused, each with one message that names file and reason.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "io/error.hpp"
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
