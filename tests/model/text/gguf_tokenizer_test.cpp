#include "model/text/gguf_tokenizer.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "model/error.hpp"
#include "model/text/tokenizer.hpp"

namespace penstock::model {
namespace {

using Strings = std::vector<std::string>;
using Integers = std::vector<std::int32_t>;
using Value = std::variant<std::string, std::uint32_t, bool, Strings, Integers>;
using Metadata = std::vector<std::pair<std::string, Value>>;
using Ids = std::vector<std::int32_t>;

// A GGUF of metadata only, by the format's description (ggml, docs/gguf.md).
class Writer {
 public:
  template <class Number>
  void number(Number value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(const std::string& value) {
    number(static_cast<std::uint64_t>(value.size()));
    bytes_ += value;
  }
  void operator()(const std::string& value) {
    number(std::uint32_t{8});
    text(value);
  }
  void operator()(std::uint32_t value) {
    number(std::uint32_t{4});
    number(value);
  }
  void operator()(bool value) {
    number(std::uint32_t{7});
    number(static_cast<std::uint8_t>(value));
  }
  void operator()(const Strings& values) {
    list(8, values.size());
    for (const std::string& value : values) text(value);
  }
  void operator()(const Integers& values) {
    list(5, values.size());
    for (const std::int32_t value : values) number(value);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void list(std::uint32_t type, std::size_t count) {
    number(std::uint32_t{9});
    number(type);
    number(static_cast<std::uint64_t>(count));
  }
  std::string bytes_;
};

class GgufTokenizerTest : public testing::Test {
 protected:
  TokenizerFiles convert(const Metadata& metadata) {
    Writer writer;
    for (const char c : {'G', 'G', 'U', 'F'}) writer.number(c);
    writer.number(std::uint32_t{3});
    writer.number(std::uint64_t{0});
    writer.number(static_cast<std::uint64_t>(metadata.size()));
    for (const auto& [key, value] : metadata) {
      writer.text(key);
      std::visit([&](const auto& v) { writer(v); }, value);
    }
    std::ofstream(path_, std::ios::binary) << writer.bytes();
    return gguf_tokenizer(io::GgufFile(path_));
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::string error_of(const Metadata& metadata) {
    try {
      convert(metadata);
    } catch (const ModelError& error) {
      return error.what();
    }
    return "no error";
  }

  // Every byte, the pairs "1" "2" and "a" "b", a control token, a user's token, and padding.
  static Metadata vocabulary(const std::string& pre) {
    Strings tokens;
    for (int c = 0x21; c < 0x7F; ++c) tokens.emplace_back(1, static_cast<char>(c));
    for (const char* more : {"\xC4\xA0", "12", "ab", "<|bos|>", "<user>", "[PAD99]", "spare"}) {
      tokens.emplace_back(more);
    }
    Integers types(tokens.size(), 1);
    types[97] = 3;
    types[98] = 4;
    types[99] = 4;
    types[100] = 5;
    return {{"general.architecture", std::string("llama")},
            {"tokenizer.ggml.model", std::string("gpt2")},
            {"tokenizer.ggml.pre", pre},
            {"tokenizer.ggml.tokens", tokens},
            {"tokenizer.ggml.token_type", types},
            {"tokenizer.ggml.merges", Strings{"1 2", "a b"}},
            {"tokenizer.ggml.bos_token_id", std::uint32_t{97}}};
  }

  std::string path_ = testing::TempDir() + "gguf_tokenizer_" +
                      testing::UnitTest::GetInstance()->current_test_info()->name() + ".gguf";
};

constexpr std::int32_t space = 94, one_two = 95, ab = 96, bos = 97, user = 98;
constexpr std::int32_t letter(char c) { return c - 0x21; }

TEST_F(GgufTokenizerTest, EachStyleSplitsDigitsInItsWay) {
  const auto ids = [&](const std::string& pre, const std::string& text) {
    return Tokenizer::from_json(convert(vocabulary(pre)).tokenizer_json).encode(text, false);
  };
  EXPECT_EQ(ids("gpt-2", "ab 12"), (Ids{ab, space, one_two}));
  EXPECT_EQ(ids("smollm", "ab 12"), (Ids{ab, space, letter('1'), letter('2')}));
  EXPECT_EQ(ids("llama-bpe", "1212 12"), (Ids{one_two, letter('1'), letter('2'), space, one_two}));
  EXPECT_EQ(ids("qwen2", "12"), (Ids{letter('1'), letter('2')}));
}

TEST_F(GgufTokenizerTest, TokensOfTheUserAreCutOutAndPaddingIsLeftOut) {
  const auto tokenizer = Tokenizer::from_json(convert(vocabulary("gpt-2")).tokenizer_json);
  EXPECT_EQ(tokenizer.encode("ab<user><|bos|>", true), (Ids{ab, user, bos}));
  EXPECT_EQ(tokenizer.decode(Ids{user, bos, ab}, true), "<user>ab");
  EXPECT_EQ(tokenizer.token_to_id("[PAD99]"), std::nullopt);
  EXPECT_EQ(tokenizer.token_to_id("spare"), std::nullopt);
}

TEST_F(GgufTokenizerTest, BosAndEosFollowTheKeysOrTheStyle) {
  const auto ids = [&](Metadata metadata, const std::string& key, bool value) {
    if (!key.empty()) metadata.emplace_back(key, value);
    metadata.emplace_back("tokenizer.ggml.eos_token_id", std::uint32_t{98});
    return Tokenizer::from_json(convert(metadata).tokenizer_json).encode("a", true);
  };
  const std::string bos_key = "tokenizer.ggml.add_bos_token";
  EXPECT_EQ(ids(vocabulary("llama-bpe"), "", false), (Ids{bos, letter('a')}));
  EXPECT_EQ(ids(vocabulary("llama-bpe"), bos_key, false), (Ids{letter('a')}));
  EXPECT_EQ(ids(vocabulary("gpt-2"), "", false), (Ids{letter('a')}));
  EXPECT_EQ(ids(vocabulary("gpt-2"), bos_key, true), (Ids{bos, letter('a')}));
  EXPECT_EQ(ids(vocabulary("gpt-2"), "tokenizer.ggml.add_eos_token", true),
            (Ids{letter('a'), user}));
}

TEST_F(GgufTokenizerTest, KeepsTheChatTemplate) {
  Metadata metadata = vocabulary("gpt-2");
  EXPECT_EQ(convert(metadata).chat_template, "");
  metadata.emplace_back("tokenizer.chat_template", std::string("{{ x }}"));
  EXPECT_EQ(convert(metadata).chat_template, "{{ x }}");
}

TEST_F(GgufTokenizerTest, NamesWhatIsBrokenOrNotSupported) {
  const auto expect = [&](std::size_t entry, const Value& value, const std::string& part) {
    Metadata metadata = vocabulary("gpt-2");
    metadata[entry].second = value;
    const std::string error = error_of(metadata);
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_NE(error.find(path_), std::string::npos) << error;
  };
  expect(1, std::string("llama"), "'llama'");
  expect(2, std::string("tekken"), "'tekken'");
  expect(2, std::string("tekken"), "llama-bpe");
  expect(3, Strings{"a", "b", "a"}, "3 tokens");
  expect(4, Integers{1, 1}, "2 token types");
  expect(5, Strings{"ab"}, "merge 0");
  Metadata metadata = vocabulary("gpt-2");
  metadata[3].second = Strings{"a", "b", "a"};
  metadata[4].second = Integers{1, 1, 1};
  EXPECT_NE(error_of(metadata).find("token 2 is 'a'"), std::string::npos);
  metadata[3].second = Strings{"a", "b", "\xFF"};
  EXPECT_NE(error_of(metadata).find("not UTF-8"), std::string::npos);
  metadata = vocabulary("llama-bpe");
  metadata[6].second = std::uint32_t{500};
  EXPECT_NE(error_of(metadata).find("bos_token_id is 500"), std::string::npos);
  metadata = vocabulary("gpt-2");
  metadata.erase(metadata.begin() + 2);
  EXPECT_NE(error_of(metadata).find("no tokenizer.ggml.pre"), std::string::npos);
}

}  // namespace
}  // namespace penstock::model
