// Ids and texts equal those of the tokenizers library (tests/reference/tokenizer_reference.py).
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "io/gguf.hpp"
#include "model/text/gguf_tokenizer.hpp"
#include "model/text/tokenizer.hpp"

namespace penstock::model {
namespace {

namespace fs = std::filesystem;

// Fewer where each takes ten times as long.
constexpr std::size_t line_count = sizeof(PENSTOCK_TEST_SANITIZER) > 1 ? 10'000 : 100'000;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

// The file format of the script: a uint32 count, then so many elements.
template <class Element, class List>
std::vector<List> read_lists(const fs::path& path) {
  const std::string data = read_file(path);
  std::vector<List> lists;
  for (std::size_t at = 0; at < data.size();) {
    std::uint32_t count = 0;
    std::memcpy(&count, data.data() + at, sizeof count);
    at += sizeof count;
    List list(count, Element{});
    if (count > 0) std::memcpy(list.data(), data.data() + at, count * sizeof(Element));
    at += count * sizeof(Element);
    lists.push_back(std::move(list));
  }
  return lists;
}

std::vector<std::string> ggufs() {
  std::vector<std::string> paths;
  if (const char* path = std::getenv("PENSTOCK_SMOLLM2_GGUF")) paths.emplace_back(path);
  if (const char* list = std::getenv("PENSTOCK_VOCAB_GGUFS")) {
    std::istringstream in(list);
    for (std::string path; std::getline(in, path, ':');) paths.push_back(path);
  }
  return paths;
}

class TokenizerReference : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (std::string(PENSTOCK_TEST_PYTHON).empty()) return;
    folder_ = fs::path(testing::TempDir()) / "penstock_tokenizer_reference";
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    std::string command = std::string("'") + PENSTOCK_TEST_PYTHON + "' '" + PENSTOCK_SOURCE_DIR +
                          "/tests/reference/tokenizer_reference.py' '" + folder_.string() + "' " +
                          std::to_string(line_count);
    for (const std::string& path : ggufs()) command += " '" + path + "'";
    status_ = std::system(command.c_str());
    lines_ = read_lists<char, std::string>(folder_ / "lines");
  }
  static void TearDownTestSuite() {
    lines_.clear();
    if (!folder_.empty()) fs::remove_all(folder_);
  }
  void SetUp() override {
    if (std::string(PENSTOCK_TEST_PYTHON).empty()) {
      GTEST_SKIP() << "PENSTOCK_TEST_PYTHON is not set: no reference tokenizers library";
    }
    ASSERT_EQ(status_, 0) << "tokenizer_reference.py failed";
    ASSERT_GE(lines_.size(), line_count);
  }

  static std::string escaped(std::string_view text) {
    std::ostringstream out;
    for (const char c : text.substr(0, 200)) {
      if (c >= 0x20 && c < 0x7F) {
        out << c;
      } else {
        out << "\\x" << std::hex << (static_cast<unsigned>(c) & 0xFF) << std::dec;
      }
    }
    return out.str();
  }

  // `stride`: the case has every so-manieth line.
  static void compare(const Tokenizer& tokenizer, const std::string& name, std::size_t stride) {
    const auto ids = read_lists<std::int32_t, std::vector<std::int32_t>>(folder_ / (name + ".ids"));
    const auto with_special =
        read_lists<std::int32_t, std::vector<std::int32_t>>(folder_ / (name + ".bos_ids"));
    const auto texts = read_lists<char, std::string>(folder_ / (name + ".texts"));
    ASSERT_EQ(ids.size(), (lines_.size() + stride - 1) / stride);
    ASSERT_EQ(texts.size(), ids.size());
    std::size_t failures = 0;
    for (std::size_t i = 0; i < ids.size() && failures < 10; ++i) {
      const std::string& line = lines_[i * stride];
      const auto found = tokenizer.encode(line, false);
      if (found != ids[i]) {
        ++failures;
        ADD_FAILURE() << name << ": ids of line " << i << ": " << escaped(line) << "\n  found "
                      << testing::PrintToString(found) << "\n  reference "
                      << testing::PrintToString(ids[i]);
      }
      if (i < with_special.size()) {
        EXPECT_EQ(tokenizer.encode(line, true), with_special[i]);
      }
      const std::string text = tokenizer.decode(ids[i], true);
      if (text != texts[i]) {
        ++failures;
        ADD_FAILURE() << name << ": text of line " << i << "\n  found " << escaped(text)
                      << "\n  reference " << escaped(texts[i]);
      }
      StreamDecoder stream(tokenizer);
      std::string pieces;
      for (const std::int32_t id : ids[i]) pieces += stream.push(id);
      pieces += stream.finish();
      if (pieces != texts[i]) {
        ++failures;
        ADD_FAILURE() << name << ": streamed text of line " << i << ": " << escaped(pieces);
      }
    }
  }

  static void compare_json(const std::string& name, std::size_t stride = 1) {
    compare(Tokenizer::from_json(read_file(folder_ / (name + ".json"))), name, stride);
  }

  static fs::path folder_;
  static int status_;
  static std::vector<std::string> lines_;
};
fs::path TokenizerReference::folder_;
int TokenizerReference::status_ = -1;
std::vector<std::string> TokenizerReference::lines_;

// One test: each test of CTest is a process of its own, and the reference is made once.
TEST_F(TokenizerReference, IdsAndTextsOfAllStyles) {
  for (const char* name : {"gpt2", "smollm", "llama3", "qwen2"}) compare_json(name);
  for (const char* name : {"gpt2_prefix", "sentencepiece", "metaspace"}) compare_json(name, 4);
  for (const std::string& path : ggufs()) {
    const io::GgufFile file(path);
    compare(Tokenizer::from_json(gguf_tokenizer(file).tokenizer_json),
            fs::path(path).filename().string(), 1);
  }
}

}  // namespace
}  // namespace penstock::model
