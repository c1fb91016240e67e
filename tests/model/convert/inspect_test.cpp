#include "model/convert/inspect.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

namespace penstock::model {
namespace {

using testing::HasSubstr;
using testing::Not;

// Two layers, a vocabulary of 1000, hidden size 64. Parameters by hand: embedding and head 64,000
// each, a layer 64 + 4,096, final norm 64.
class InspectTest : public testing::Test {
 protected:
  InspectTest()
      : path_(testing::TempDir() + "penstock_inspect_" + std::to_string(::getpid()) + ".h5") {}
  ~InspectTest() override { std::filesystem::remove(path_); }

  nlohmann::json describe(bool no_data, std::vector<io::Blob> tokenizer) const {
    io::CheckpointHeader header;
    header.architecture = "llama";
    header.source = "a \x1b[31mfolder";
    header.created_by = "penstock 0.1.0";
    header.no_data = no_data;
    header.config = {{"hidden_size", std::int64_t{64}},
                     {"rope_theta", 10000.0},
                     {"rope_type", std::string("none")}};
    header.tokenizer = std::move(tokenizer);
    const std::vector<io::TensorSpec> tensors{
        {"/embed/weight", io::DType::bf16, {1000, 64}},
        {"/layers/0000/attn/norm", io::DType::f32, {64}},
        {"/layers/0000/attn/q", io::DType::bf16, {64, 64}},
        {"/layers/0001/attn/norm", io::DType::f32, {64}},
        {"/layers/0001/attn/q", io::DType::bf16, {64, 64}},
        {"/final/norm", io::DType::f32, {64}},
        {"/head/weight", io::DType::bf16, {1000, 64}},
    };
    io::CheckpointWriter writer(path_, header, tensors);
    for (std::size_t i = 0; i < tensors.size() && !no_data; ++i) {
      std::uint64_t size_bytes = io::size_of(tensors[i].dtype);
      for (const std::uint64_t extent : tensors[i].shape) size_bytes *= extent;
      writer.append(i, std::vector<std::byte>(size_bytes));
    }
    writer.finish();
    return describe_checkpoint(io::CheckpointReader(path_));
  }

  std::string path_;
};

const char* const kTokenizer = R"({
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}},
  "added_tokens": [{"id": 2, "content": "ab"}, {"id": 3, "content": "<s>"}]})";

TEST_F(InspectTest, CountsWhatTheCheckpointHolds) {
  const auto description = describe(false, {{"tokenizer.json", kTokenizer}, {"other", "12345"}});
  EXPECT_EQ(description["format"], "penstock");
  EXPECT_EQ(description["schema"], 1);
  EXPECT_EQ(description["architecture"], "llama");
  EXPECT_EQ(description["dtype"], "bf16");
  EXPECT_EQ(description["no_data"], false);
  EXPECT_EQ(description["parameters"], 128000 + 2 * 4160 + 64);
  EXPECT_EQ(description["tensor_bytes"], 256000 + 2 * (256 + 8192) + 256);
  EXPECT_EQ(description["size_bytes"], std::filesystem::file_size(path_));
  EXPECT_EQ(description["layers"], 2);
  EXPECT_EQ(description["files"], 1);
  EXPECT_EQ(description["config"]["hidden_size"], 64);
  EXPECT_EQ(description["config"]["rope_theta"], 10000.0);
  EXPECT_EQ(description["config"]["rope_type"], "none");
  EXPECT_EQ(description["tokenizer"]["kind"], "BPE");
  EXPECT_EQ(description["tokenizer"]["vocab_size"], 4);
  EXPECT_EQ(description["tokenizer"]["files"][1]["size_bytes"], 5);
  ASSERT_EQ(description["groups"].size(), 4u);
  EXPECT_EQ(description["groups"][1]["name"], "layers");
  EXPECT_EQ(description["groups"][1]["tensors"], 4);
  EXPECT_EQ(description["groups"][1]["parameters"], 8320);
  EXPECT_EQ(description["groups"][1]["size_bytes"], 16896);
  ASSERT_EQ(description["tensors"].size(), 7u);
  EXPECT_EQ(description["tensors"][2]["name"], "/layers/0000/attn/q");
  EXPECT_EQ(description["tensors"][2]["shape"], (std::vector<int>{64, 64}));
  EXPECT_EQ(description["tensors"][2]["dtype"], "bf16");
  EXPECT_EQ(description["tensors"][2]["size_bytes"], 8192);
  EXPECT_EQ(description["tensors"][2]["offset"].get<std::uint64_t>() % 4096, 0u);
}

TEST_F(InspectTest, TableForPeople) {
  const std::string text = format_description(
      describe(false, {{"tokenizer.json", kTokenizer}, {"other", "12345"}}), false);
  EXPECT_THAT(text, HasSubstr("parameters    136,384 (136.4 k)\n"));
  EXPECT_THAT(text, HasSubstr("dtype         bf16 (bf16 136.2 k, f32 192)\n"));
  EXPECT_THAT(text, HasSubstr("layers        2\n"));
  EXPECT_THAT(text, HasSubstr("tokenizer     BPE, 4 tokens (tokenizer.json "));
  EXPECT_THAT(text, HasSubstr("embedding             1                64,000    128.0 kB\n"));
  EXPECT_THAT(text, HasSubstr("2 layers              4                 8,320     16.9 kB\n"));
  EXPECT_THAT(text, HasSubstr("together              7               136,384    273.2 kB\n"));
  EXPECT_THAT(text, HasSubstr("hidden_size  64\n"));
  EXPECT_THAT(text, HasSubstr("source        a \\x1b[31mfolder\n"));  // no escape codes
  EXPECT_THAT(text, Not(HasSubstr("/layers/0000")));
}

TEST_F(InspectTest, ATiedHeadIsCalledACopy) {
  auto description = describe(true, {});
  description["config"]["tie_word_embeddings"] = 1;
  EXPECT_THAT(format_description(description, false),
              HasSubstr("parameters    136,384 (136.4 k; 72.4 k without the head, which is a copy "
                        "of the embedding)\n"));
}

TEST_F(InspectTest, AllTensorsOnRequest) {
  const std::string text = format_description(describe(false, {}), true);
  EXPECT_THAT(text, HasSubstr("tokenizer     none\n"));
  EXPECT_THAT(text, HasSubstr("/embed/weight           bf16  [1,000 × 64]"));
  EXPECT_THAT(text, HasSubstr("128.0 kB  at "));
}

TEST_F(InspectTest, ShapesOnly) {
  const auto description = describe(true, {});
  EXPECT_EQ(description["no_data"], true);
  EXPECT_FALSE(description["tensors"][0].contains("offset"));
  EXPECT_THAT(format_description(description, true),
              HasSubstr("data          none: shapes only\n"));
}

TEST_F(InspectTest, TokenizersThatAreNotSound) {
  EXPECT_EQ(describe(true, {{"tokenizer.json", "{"}})["tokenizer"]["kind"],
            "broken tokenizer.json");
  const std::string deep(1000000, '[');
  EXPECT_EQ(describe(true, {{"tokenizer.json", R"({"model": )" + deep + std::string(1000000, ']') +
                                                   "}"}})["tokenizer"]["files"]
                .size(),
            1u);
  for (const char* text :
       {"{}", R"({"model": 3})",
        R"({"model": {"type": 1, "vocab": [1]}, "added_tokens": {"a": 1}})",
        R"({"model": {"vocab": {"a": "x"}}, "added_tokens": [1, {"id": null}]})"}) {
    const auto tokenizer = describe(true, {{"tokenizer.json", text}})["tokenizer"];
    EXPECT_FALSE(tokenizer.contains("kind")) << text;
    EXPECT_EQ(tokenizer.value("vocab_size", 0), 0) << text;
  }
}

}  // namespace
}  // namespace penstock::model
