#include "model/text/gguf_tokenizer.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>

#include "io/error.hpp"
#include "io/utf8.hpp"
#include "model/error.hpp"

namespace penstock::model {
namespace {

using Json = nlohmann::ordered_json;

// The pre-tokenizers of the models' own tokenizer.json, by the names that llama.cpp's converter
// gives them (convert_hf_to_gguf_update.py; src/llama-vocab.cpp lists the patterns and which names
// ignore merges and have a BOS when the file does not say).
enum class Style { gpt2, digits_gpt2, llama3, qwen2 };
struct Pre {
  std::string_view name;
  Style style;
};
constexpr auto pres = std::to_array<Pre>({
    {"gpt-2", Style::gpt2},
    {"default", Style::gpt2},
    {"smollm", Style::digits_gpt2},
    {"starcoder", Style::digits_gpt2},
    {"refact", Style::digits_gpt2},
    {"llama-bpe", Style::llama3},
    {"llama3", Style::llama3},
    {"llama-v3", Style::llama3},
    {"qwen2", Style::qwen2},
    {"deepseek-r1-qwen", Style::qwen2},
});

constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// tokenizer.ggml.token_type
enum TokenType : std::int64_t { normal = 1, control = 3, user_defined = 4, unused = 5 };

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Json split(std::string_view pattern) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", pattern}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Json pre_tokenizer(Style style) {
  Json parts;
  switch (style) {
    case Style::gpt2:
      return byte_level(true);
    case Style::digits_gpt2:
      parts = {{{"type", "Digits"}, {"individual_digits", true}}, byte_level(true)};
      break;
    case Style::llama3:
      parts = {split(llama3_pattern), byte_level(false)};
      break;
    case Style::qwen2:
      parts = {split(qwen2_pattern), byte_level(false)};
      break;
  }
  return {{"type", "Sequence"}, {"pretokenizers", parts}};
}

Style style_of(const io::GgufFile& file) {
  std::vector<std::string_view> names;
  for (const Pre& pre : pres) names.push_back(pre.name);
  const std::string known = fmt::format("known: {}", fmt::join(names, ", "));
  if (file.find("tokenizer.ggml.pre") == nullptr) {
    throw ModelError(
        fmt::format("{}: no tokenizer.ggml.pre: which pre-tokenizer the vocabulary "
                    "belongs to is unknown; convert the model again with a newer "
                    "converter ({})",
                    file.path(), known));
  }
  const std::string& name = file.text("tokenizer.ggml.pre");
  for (const Pre& pre : pres) {
    if (pre.name == name) return pre.style;
  }
  throw ModelError(
      fmt::format("{}: the pre-tokenizer {} (tokenizer.ggml.pre) is not supported "
                  "({})",
                  file.path(), io::quoted(name), known));
}

std::vector<std::int64_t> token_types(const io::GgufFile& file, std::size_t count) {
  const io::GgufValue* value = file.find("tokenizer.ggml.token_type");
  if (value == nullptr) return std::vector<std::int64_t>(count, normal);
  std::vector<std::int64_t> types;
  if (const auto* integers = std::get_if<std::vector<std::int64_t>>(value)) {
    types = *integers;
  } else if (const auto* naturals = std::get_if<std::vector<std::uint64_t>>(value)) {
    for (const std::uint64_t type : *naturals) types.push_back(static_cast<std::int64_t>(type));
  } else {
    throw ModelError(
        fmt::format("{}: tokenizer.ggml.token_type is not a list of integers", file.path()));
  }
  if (types.size() != count) {
    throw ModelError(fmt::format("{}: {} token types (tokenizer.ggml.token_type) for {} tokens",
                                 file.path(), types.size(), count));
  }
  return types;
}

Json added_token(std::size_t id, std::string_view content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

// Fills "vocab" and "added_tokens".
void read_tokens(const io::GgufFile& file, Json& vocabulary, Json& added) {
  const std::vector<std::string>& tokens = file.texts("tokenizer.ggml.tokens");
  const std::vector<std::int64_t> types = token_types(file, tokens.size());
  std::unordered_set<std::string_view> seen;
  nlohmann::json sorted = nlohmann::json::object();  // an ordered_json object is a list inside
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    const std::string& token = tokens[id];
    if (!io::is_valid_utf8(token)) {
      throw ModelError(fmt::format("{}: token {} is not UTF-8", file.path(), id));
    }
    // Converters fill the vocabulary up to the size of the embedding; the tokenizer knows nothing
    // of these.
    const bool padding = types[id] == unused || token == fmt::format("[PAD{}]", id);
    if (padding || token.empty()) continue;
    if (!seen.insert(token).second) {
      throw ModelError(fmt::format("{}: token {} is {}, like one before it", file.path(), id,
                                   io::quoted(token)));
    }
    sorted[token] = id;
    if (types[id] == control || types[id] == user_defined) {
      added.push_back(added_token(id, token, types[id] == control));
    }
  }
  vocabulary = std::move(sorted);
}

Json read_merges(const io::GgufFile& file) {
  Json merges = Json::array();
  for (const std::string& merge : file.texts("tokenizer.ggml.merges")) {
    const std::size_t space = merge.find(' ', 1);
    if (space == merge.npos || !io::is_valid_utf8(merge)) {
      throw ModelError(fmt::format("{}: merge {} is {}, not two tokens and a space", file.path(),
                                   merges.size(), io::quoted(merge)));
    }
    merges.push_back(Json::array({merge.substr(0, space), merge.substr(space + 1)}));
  }
  return merges;
}

bool flag_or(const io::GgufFile& file, std::string_view key, bool otherwise) {
  const io::GgufValue* value = file.find(key);
  if (value == nullptr) return otherwise;
  if (const bool* flag = std::get_if<bool>(value)) return *flag;
  throw ModelError(fmt::format("{}: {} is not true or false", file.path(), key));
}

Json post_processor(const io::GgufFile& file, Style style) {
  const bool has_bos = flag_or(file, "tokenizer.ggml.add_bos_token", style == Style::llama3);
  const bool has_eos = flag_or(file, "tokenizer.ggml.add_eos_token", false);
  if (!has_bos && !has_eos) return nullptr;
  const std::vector<std::string>& tokens = file.texts("tokenizer.ggml.tokens");
  Json single = Json::array();
  Json specials = Json::object();
  const auto add = [&](std::string_view key) {
    const std::int64_t id = file.integer(key);
    if (id < 0 || static_cast<std::size_t>(id) >= tokens.size()) {
      throw ModelError(fmt::format("{}: {} is {}, but there are {} tokens", file.path(), key, id,
                                   tokens.size()));
    }
    const std::string& token = tokens[static_cast<std::size_t>(id)];
    single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    specials[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
  };
  if (has_bos) add("tokenizer.ggml.bos_token_id");
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (has_eos) add("tokenizer.ggml.eos_token_id");
  Json pair = single;  // the format wants one; penstock encodes single texts only
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", specials}};
}

}  // namespace

TokenizerFiles gguf_tokenizer(const io::GgufFile& file) {
  const std::string& kind = file.text("tokenizer.ggml.model");
  if (kind != "gpt2") {
    throw ModelError(
        fmt::format("{}: the tokenizer {} (tokenizer.ggml.model) is not supported "
                    "(known: gpt2, which is byte-level BPE)",
                    file.path(), io::quoted(kind)));
  }
  const Style style = style_of(file);
  Json vocabulary;
  Json added = Json::array();
  read_tokens(file, vocabulary, added);
  Json json = {{"version", "1.0"},
               {"truncation", nullptr},
               {"padding", nullptr},
               {"added_tokens", std::move(added)},
               {"normalizer", style == Style::qwen2 ? Json{{"type", "NFC"}} : Json(nullptr)},
               {"pre_tokenizer", pre_tokenizer(style)},
               {"post_processor", post_processor(file, style)},
               {"decoder", byte_level(true)},
               {"model",
                {{"type", "BPE"},
                 {"dropout", nullptr},
                 {"unk_token", nullptr},
                 {"continuing_subword_prefix", nullptr},
                 {"end_of_word_suffix", nullptr},
                 {"fuse_unk", false},
                 {"byte_fallback", false},
                 {"ignore_merges", style == Style::llama3},
                 {"vocab", std::move(vocabulary)},
                 {"merges", read_merges(file)}}}};
  TokenizerFiles files;
  files.tokenizer_json = json.dump();
  if (file.find("tokenizer.chat_template") != nullptr) {
    files.chat_template = file.text("tokenizer.chat_template");
  }
  return files;
}

}  // namespace penstock::model
