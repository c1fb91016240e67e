#include "model/text/tokenizer.hpp"

#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "io/utf8.hpp"
#include "model/error.hpp"

namespace penstock::model {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int32_t>;

// Written by tests/reference/tokenizer_small.py with the tokenizers library.
const json& reference() {
  static const json data = [] {
    std::ifstream in(PENSTOCK_SOURCE_DIR "/tests/reference/data/tokenizer_small.json");
    return json::parse(in);
  }();
  return data;
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

// A byte-level tokenizer of the letters a, b, c and the blank, with the merges ab and abc.
json small_json() {
  return json::parse(R"({
    "version": "1.0",
    "added_tokens": [{"id": 6, "content": "<x>", "special": true, "single_word": false,
                      "lstrip": false, "rstrip": false, "normalized": false}],
    "normalizer": null,
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": null,
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "use_regex": true},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "\u0120": 5},
              "merges": ["a b", "ab c"]}})");
}

TEST(TokenizerTest, IdsEqualTheReferences) {
  const json& texts = reference().at("texts");
  for (const json& item : reference().at("cases")) {
    SCOPED_TRACE(item.at("name").get<std::string>());
    const auto tokenizer = Tokenizer::from_json(item.at("tokenizer").get<std::string>());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      EXPECT_EQ(tokenizer.encode(from_hex(texts[i]), true), item.at("ids")[i].get<Ids>())
          << "text " << i;
    }
  }
}

TEST(TokenizerTest, TextsEqualTheReferences) {
  for (const json& item : reference().at("cases")) {
    SCOPED_TRACE(item.at("name").get<std::string>());
    const auto tokenizer = Tokenizer::from_json(item.at("tokenizer").get<std::string>());
    for (std::size_t i = 0; i < item.at("ids").size(); ++i) {
      const Ids ids = item.at("ids")[i];
      EXPECT_EQ(tokenizer.decode(ids, true), item.at("texts_without_special")[i]);
      EXPECT_EQ(tokenizer.decode(ids, false), item.at("texts_with_special")[i]);
    }
    for (std::size_t i = 0; i < item.at("any_ids").size(); ++i) {
      EXPECT_EQ(tokenizer.decode(item.at("any_ids")[i].get<Ids>(), true), item.at("any_texts")[i]);
    }
  }
}

TEST(TokenizerTest, DecodingGivesTheTextBack) {
  for (const json& item : reference().at("cases")) {
    const std::string name = item.at("name");
    if (name != "gpt2" && name != "smollm" && name != "llama3") continue;  // others rewrite texts
    SCOPED_TRACE(name);
    const auto tokenizer = Tokenizer::from_json(item.at("tokenizer").get<std::string>());
    for (const json& hex : reference().at("texts")) {
      const std::string text = from_hex(hex);
      if (text.find("[L]") != text.npos || text.find("[R]") != text.npos) continue;  // take blanks
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, false), false), io::to_valid_utf8(text));
    }
  }
}

TEST(TokenizerTest, StreamedPiecesAreWholeCharactersAndGiveTheReferencesText) {
  for (const json& item : reference().at("cases")) {
    SCOPED_TRACE(item.at("name").get<std::string>());
    const auto tokenizer = Tokenizer::from_json(item.at("tokenizer").get<std::string>());
    for (std::size_t i = 0; i < item.at("any_ids").size(); ++i) {
      StreamDecoder stream(tokenizer);
      std::string text;
      for (const std::int32_t id : item.at("any_ids")[i].get<Ids>()) {
        const std::string piece = stream.push(id);
        EXPECT_TRUE(io::is_valid_utf8(piece));
        text += piece;
      }
      text += stream.finish();
      EXPECT_EQ(text, item.at("any_texts")[i]);
    }
  }
}

TEST(TokenizerTest, StreamGivesACharacterWhenItsLastByteIsThere) {
  const json& item = reference().at("cases")[0];  // gpt2: bytes are tokens
  const auto tokenizer = Tokenizer::from_json(item.at("tokenizer").get<std::string>());
  const Ids ids = tokenizer.encode("\xE2\x82\xAC", false);  // the euro sign
  ASSERT_EQ(ids.size(), 3u);
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.push(ids[1]), "");
  EXPECT_EQ(stream.push(ids[2]), "\xE2\x82\xAC");
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

TEST(TokenizerTest, KnowsItsTokens) {
  const auto tokenizer = Tokenizer::from_json(small_json().dump());
  EXPECT_EQ(tokenizer.encode("abc ab<x>", false), (Ids{4, 5, 3, 6}));
  EXPECT_EQ(tokenizer.vocab_size(), 7u);
  EXPECT_EQ(tokenizer.token_to_id("<x>"), 6);
  EXPECT_EQ(tokenizer.token_to_id("abc"), 4);
  EXPECT_EQ(tokenizer.token_to_id("d"), std::nullopt);
  EXPECT_EQ(tokenizer.id_to_token(3), "ab");
  EXPECT_EQ(tokenizer.id_to_token(7), "");
  EXPECT_TRUE(tokenizer.is_special(6));
  EXPECT_FALSE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_EQ(tokenizer.decode(Ids{4, 6, -1, 99, 0}, true), "abca");
  EXPECT_EQ(tokenizer.decode(Ids{4, 6}, false), "abc<x>");
}

// Time is linear, or these tests do not end: no run is tried again from each of its characters,
// and no limit of the pattern matcher turns a long line into an error.
TEST(TokenizerTest, EncodesLongRuns) {
  for (const json& item : reference().at("cases")) {
    SCOPED_TRACE(item.at("name").get<std::string>());
    const std::size_t size = item.at("name") == "llama3" ? 1'000'000 : 100'000;
    const auto tokenizer = Tokenizer::from_json(item.at("tokenizer").get<std::string>());
    std::string mixed;
    while (mixed.size() < size) mixed += " \n\t";
    for (const std::string& text :
         {std::string(size, ' '), std::string(size, 'a'), std::string(size, '7'),
          std::string(size, '\n'), std::string(size, '='), mixed, std::string(size, ' ') + "x"}) {
      const Ids ids = tokenizer.encode(text, false);
      EXPECT_LE(ids.size(), text.size() + 2);
      if (item.at("name") == "gpt2") {
        EXPECT_EQ(tokenizer.decode(ids, false), text);
      }
    }
  }
}

TEST(TokenizerTest, ManyThreadsGetTheSameIds) {
  const json& item = reference().at("cases")[2];
  const auto tokenizer = Tokenizer::from_json(item.at("tokenizer").get<std::string>());
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      const json& texts = reference().at("texts");
      for (std::size_t i = 0; i < texts.size(); ++i) {
        if (tokenizer.encode(from_hex(texts[i]), true) != item.at("ids")[i].get<Ids>()) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

std::string error_of(const std::string& text) {
  try {
    Tokenizer::from_json(text);
  } catch (const ModelError& error) {
    return error.what();
  }
  return "no error";
}

std::string error_with(const std::string& pointer, const json& value) {
  json changed = small_json();
  changed[json::json_pointer(pointer)] = value;
  return error_of(changed.dump());
}

TEST(TokenizerTest, NamesWhatIsBrokenOrNotSupported) {
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != text.npos ? testing::AssertionSuccess()
                                        : testing::AssertionFailure() << text;
  };
  EXPECT_TRUE(has(error_of(""), "cannot be read"));
  EXPECT_TRUE(has(error_of("{\"model\": "), "cannot be read"));
  EXPECT_TRUE(has(error_of("[]"), "not a JSON object"));
  EXPECT_TRUE(has(error_of("{}"), "'model'"));
  EXPECT_TRUE(has(error_of("{\"model\": \"\xff\"}"), "cannot be read"));
  EXPECT_TRUE(has(error_with("/version", "2.0"), "version \"2.0\""));
  EXPECT_TRUE(has(error_with("/model/type", "Unigram"), "Unigram"));
  EXPECT_TRUE(has(error_with("/model/dropout", 0.1), "dropout"));
  EXPECT_TRUE(has(error_with("/model/end_of_word_suffix", "</w>"), "end_of_word_suffix"));
  EXPECT_TRUE(has(error_with("/model/unk_token", "<unk>"), "<unk>"));
  EXPECT_TRUE(has(error_with("/model/vocab", 3), "vocab"));
  EXPECT_TRUE(has(error_with("/model/vocab/a", -1), "'a'"));
  EXPECT_TRUE(has(error_with("/model/vocab/a", 2147483648u), "2147483648"));
  EXPECT_TRUE(has(error_with("/model/vocab/a", 1.5), "1.5"));
  EXPECT_TRUE(has(error_with("/model/vocab/a", 1), "same id 1"));
  EXPECT_TRUE(has(error_with("/model/merges", {"a d"}), "'d'"));
  EXPECT_TRUE(has(error_with("/model/merges", {"b a"}), "'ba'"));
  EXPECT_TRUE(has(error_with("/model/merges", {"ab"}), "merge 0"));
  EXPECT_TRUE(has(error_with("/model/merges", {{"a", "b", "c"}}), "merge 0"));
  EXPECT_TRUE(has(error_with("/added_tokens/0/id", 9), "says its id is 9"));
  EXPECT_TRUE(has(error_with("/added_tokens/0/id", -3), "says its id is -3"));
  EXPECT_TRUE(has(error_with("/added_tokens/0/special", 1), "'special'"));
  EXPECT_TRUE(has(error_with("/pre_tokenizer", {{"type", "BertPreTokenizer"}}), "BertPre"));
  EXPECT_TRUE(has(error_with("/normalizer", {{"type", "Precompiled"}}), "Precompiled"));
  EXPECT_TRUE(has(error_with("/decoder", {{"type", "WordPiece"}}), "WordPiece"));
  EXPECT_TRUE(has(error_with("/post_processor", {{"type", "BertProcessing"}}), "BertProcessing"));
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", "(a"}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  EXPECT_TRUE(has(error_with("/pre_tokenizer", split), "'(a'"));
}

TEST(TokenizerTest, RefusesDeepNesting) {
  for (const auto& [part, list] :
       {std::pair<std::string, std::string>{"pre_tokenizer", "pretokenizers"},
        {"normalizer", "normalizers"},
        {"decoder", "decoders"},
        {"post_processor", "processors"}}) {
    std::string nested = "null";
    std::string open;
    for (int i = 0; i < 100'000; ++i) open += "{\"type\":\"Sequence\",\"" + list + "\":[";
    nested = open + nested;
    for (int i = 0; i < 100'000; ++i) nested += "]}";
    json whole = small_json();
    whole.erase(part);
    std::string text = whole.dump();
    text.insert(1, "\"" + part + "\":" + nested + ",");
    EXPECT_NE(error_of(text).find("deep"), std::string::npos) << part;
  }
  std::string many = "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[";
  for (int i = 0; i < 100'000; ++i) many += "{\"type\":\"Fuse\"},";
  many += "{\"type\":\"Fuse\"}]},\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}";
  EXPECT_NE(error_of(many).find("too many parts"), std::string::npos);
}

// The id of a merge's result may be that of one of its parts; BPE must still end.
TEST(TokenizerTest, MergesThatGoInCirclesEnd) {
  json cyclic = small_json();
  cyclic["model"]["vocab"] = {{"a", 0}, {"", 1}, {"aa", 2}};
  cyclic["model"]["merges"] = json::parse(R"([["", "a"], ["a", ""], ["a", "a"], ["", ""]])");
  cyclic["added_tokens"][0]["id"] = 3;
  const auto tokenizer = Tokenizer::from_json(cyclic.dump());
  EXPECT_EQ(tokenizer.encode("aaaa", false), (Ids{2, 2}));
}

// Added tokens cut a text into parts; 64 times the text is the limit of all of them together.
TEST(TokenizerTest, NormalizersMayNotMultiplyATextPartByPart) {
  json wide = small_json();
  wide["normalizer"] = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(1000, 'b')}};
  const auto tokenizer = Tokenizer::from_json(wide.dump());
  const auto text = [](int parts) {
    std::string all;
    for (int i = 0; i < parts; ++i) all += "a<x>";
    return all;
  };
  EXPECT_EQ(tokenizer.encode(text(80), false).size(), 80u * 1001);  // 80,000 of 86,016 bytes
  EXPECT_THROW(tokenizer.encode(text(90), false), ModelError);      // 90,000 of 88,576
  EXPECT_EQ(tokenizer.encode("b<x>", false), (Ids{1, 6}));          // it goes on
}

// One huge word needs 20 bytes for each of its own; the tokenizer does not keep them.
TEST(TokenizerTest, AHugeWordCostsMemoryOnlyWhileItIsEncoded) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's allocator does not tell what is in use";
#endif
  const auto in_use = [] {
    const struct mallinfo2 info = ::mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const auto tokenizer = Tokenizer::from_json(small_json().dump());
  const std::string word(4'000'000, 'b');
  EXPECT_EQ(tokenizer.encode("abc", false), (Ids{4}));  // now the cache is there
  const std::size_t before = in_use();
  EXPECT_EQ(tokenizer.encode(word, false).size(), word.size());
  EXPECT_LT(in_use(), before + (4u << 20));
  EXPECT_EQ(tokenizer.encode("abc", false), (Ids{4}));
}

TEST(TokenizerTest, MessagesShowTheFilesTextAsFitForATerminal) {
  const std::string hostile = "\n\x1b[2J" + std::string(100'000, 'x');
  const json part = {{"type", hostile}};
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", "(" + hostile}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const std::vector<std::pair<const char*, json>> changes = {
      {"/version", hostile},
      {"/model/type", hostile},
      {"/model/unk_token", hostile},
      {"/model/vocab", {{hostile, -1}}},
      {"/model/vocab", {{hostile, 0}, {"b", 0}}},
      {"/model/vocab/a", hostile},
      {"/model/merges", {hostile}},
      {"/model/merges", {"a " + hostile}},
      {"/added_tokens/0/content", "\x1b" + std::string(4000, 'x')},
      {"/added_tokens/0/id", hostile},
      {"/normalizer", part},
      {"/pre_tokenizer", part},
      {"/pre_tokenizer", split},
      {"/decoder", part},
      {"/post_processor", part}};
  for (const auto& [pointer, value] : changes) {
    SCOPED_TRACE(pointer);
    json changed = small_json();
    changed[json::json_pointer(pointer)] = value;
    if (pointer == std::string("/added_tokens/0/content")) changed["added_tokens"][0]["id"] = 77;
    const std::string message = error_of(changed.dump());
    EXPECT_TRUE(message.starts_with("tokenizer: ")) << message.substr(0, 1000);
    EXPECT_LT(message.size(), 700u);
    EXPECT_EQ(message.find_first_of("\n\x1b"), std::string::npos) << message.substr(0, 1000);
  }
}

}  // namespace
}  // namespace penstock::model
