#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "model/text/tokenizer.hpp"

namespace penstock::jobs {

// A tokenizer without merges: the id of a byte is its value, 256 is "<s>", which is put in front
// when special tokens are asked for, 257 is "<|im_start|>", 258 "<|im_end|>". `decoder`: in place
// of the ByteLevel one.
inline model::Tokenizer byte_tokenizer(const nlohmann::json& decoder = nullptr) {
  using nlohmann::json;
  // GPT-2's names of the bytes: printable ones are themselves, the others U+0100 and up.
  json vocab = json::object();
  int others = 0;
  const auto utf8 = [](int code) {
    if (code < 0x80) return std::string(1, static_cast<char>(code));
    return std::string{static_cast<char>(0xC0 | (code >> 6)),
                       static_cast<char>(0x80 | (code & 0x3F))};
  };
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    vocab[utf8(printable ? byte : 256 + others++)] = byte;
  }
  json added = json::array();
  int id = 256;
  for (const char* name : {"<s>", "<|im_start|>", "<|im_end|>"}) {
    vocab[name] = id;
    added.push_back({{"id", id++},
                     {"content", name},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  const json bos = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const json more = {{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  const json file = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", {bos, text}},
        {"pair", {bos, text, more}},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {256}}, {"tokens", {"<s>"}}}}}}}},
      {"decoder", decoder.is_null() ? byte_level : decoder},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocab},
        {"merges", json::array()}}}};
  return model::Tokenizer::from_json(file.dump());
}

}  // namespace penstock::jobs
