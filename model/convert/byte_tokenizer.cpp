#include "model/convert/byte_tokenizer.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "model/error.hpp"
#include "model/text/byte_alphabet.hpp"

namespace penstock::model {
namespace {

using nlohmann::ordered_json;

ordered_json special(std::int32_t id, const char* content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

}  // namespace

std::string byte_tokenizer_json(std::int64_t vocab_size) {
  if (vocab_size < kByteTokenizerMinimum) {
    throw ModelError(fmt::format(
        "vocab_size {} cannot hold the byte-level tokenizer ({} tokens); name a tokenizer",
        vocab_size, kByteTokenizerMinimum));
  }
  // Written by hand in the end: an ordered_json of 128256 members looks each name up linearly.
  std::string vocabulary;
  const auto add = [&](const std::string& token, std::int64_t id) {
    vocabulary += fmt::format("{}{}:{}", id == 0 ? "" : ",", ordered_json(token).dump(), id);
  };
  for (int byte = 0; byte < 256; ++byte) {
    add(to_byte_alphabet(std::string(1, static_cast<char>(byte))), byte);
  }
  add("<|bos|>", kByteTokenizerBos);
  add("<|eos|>", kByteTokenizerEos);
  // U+0120 is the alphabet's space: the words of a generated text stand apart.
  for (std::int64_t id = kByteTokenizerMinimum; id < vocab_size; ++id) {
    add(fmt::format("\u0120t{}", id), id);
  }
  const ordered_json byte_level = {{"type", "ByteLevel"},
                                   {"add_prefix_space", false},
                                   {"trim_offsets", true},
                                   {"use_regex", true}};
  const ordered_json added = {special(kByteTokenizerBos, "<|bos|>"),
                              special(kByteTokenizerEos, "<|eos|>")};
  return fmt::format(
      R"({{"version":"1.0","truncation":null,"padding":null,"added_tokens":{},"normalizer":null,)"
      R"("pre_tokenizer":{},"post_processor":null,"decoder":{},"model":{{"type":"BPE",)"
      R"("dropout":null,"unk_token":null,"continuing_subword_prefix":null,)"
      R"("end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,)"
      R"("vocab":{{{}}},"merges":[]}}}})",
      added.dump(), byte_level.dump(), byte_level.dump(), vocabulary);
}

}  // namespace penstock::model
