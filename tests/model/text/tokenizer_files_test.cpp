#include "model/text/tokenizer_files.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "io/error.hpp"

namespace penstock::model {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

class TokenizerFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("penstock_tokenizer_" + std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    write("tokenizer.json", "{\"model\": {}}");
  }
  void TearDown() override { fs::remove_all(folder_); }

  void write(const char* name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  TokenizerFiles read() const { return read_hf_tokenizer(folder_.string()); }
  std::string refusal(const fs::path& path) const {
    try {
      read_tokenizer(path.string());
    } catch (const io::FileError& error) {
      return error.what();
    }
    return "accepted";
  }

  fs::path folder_;
};

TEST_F(TokenizerFolder, OnlyTheTokenizerMustBeThere) {
  EXPECT_EQ(read().tokenizer_json, "{\"model\": {}}");
  EXPECT_EQ(read().chat_template, "");
  EXPECT_EQ(read().generation_config, "");
  fs::remove(folder_ / "tokenizer.json");
  EXPECT_THAT(refusal(folder_), HasSubstr("tokenizer.json: is missing or empty"));
}

TEST_F(TokenizerFolder, TheTemplateIsAStringOrTheDefaultOfSeveral) {
  write("tokenizer_config.json", R"({"chat_template": "one"})");
  EXPECT_EQ(read().chat_template, "one");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "a"},
                                                       {"name": "default", "template": "b"}]})");
  EXPECT_EQ(read().chat_template, "b");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "a"}]})");
  EXPECT_EQ(read().chat_template, "");
  write("tokenizer_config.json", R"({"chat_template": null})");
  EXPECT_EQ(read().chat_template, "");
}

TEST_F(TokenizerFolder, TheTemplatesOwnFileWins) {
  write("tokenizer_config.json", R"({"chat_template": "one"})");
  write("chat_template.jinja", "two");
  EXPECT_EQ(read().chat_template, "two");
}

TEST_F(TokenizerFolder, BrokenTokenizerConfigsAreRefused) {
  for (const char* text : {"{\"chat_template\": ", "[]", R"({"chat_template": 3})",
                           R"({"chat_template": ["a"]})", R"({"chat_template": [{"name": "a"}]})",
                           R"({"chat_template": [{"name": "default", "template": 3}]})"}) {
    write("tokenizer_config.json", text);
    EXPECT_THAT(refusal(folder_), HasSubstr("tokenizer_config.json: ")) << text;
  }
}

TEST_F(TokenizerFolder, ABareTokenizerIsAModel) {
  EXPECT_EQ(read_tokenizer((folder_ / "tokenizer.json").string()).tokenizer_json,
            "{\"model\": {}}");
}

TEST_F(TokenizerFolder, OtherFilesAreNot) {
  write("text", "hello");
  write("empty", "");
  for (const char* name : {"text", "empty"}) {
    EXPECT_THAT(refusal(folder_ / name), AllOf(HasSubstr(name), HasSubstr("is not a model")));
  }
  EXPECT_THAT(refusal(folder_ / "absent"), HasSubstr("absent"));
}

TEST(TokenizerFiles, BlobsKeepWhatIsThere) {
  const auto blobs = to_blobs({"json", "", "generation"});
  ASSERT_EQ(blobs.size(), 2u);
  EXPECT_EQ(blobs[0].name, "tokenizer.json");
  EXPECT_EQ(blobs[1].name, "generation_config.json");
  const TokenizerFiles files = from_blobs(blobs);
  EXPECT_EQ(files.tokenizer_json, "json");
  EXPECT_EQ(files.chat_template, "");
  EXPECT_EQ(files.generation_config, "generation");
}

}  // namespace
}  // namespace penstock::model
