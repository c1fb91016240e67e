#pragma once

#include <cstdint>
#include <string>

namespace penstock::model {

// Ids 0 … 255 are the bytes; these two follow.
inline constexpr std::int32_t kByteTokenizerBos = 256;
inline constexpr std::int32_t kByteTokenizerEos = 257;
inline constexpr std::int64_t kByteTokenizerMinimum = 258;

// A tokenizer.json whose tokens are single bytes (in the alphabet of GPT-2's byte-level BPE),
// <|bos|> and <|eos|>; the ids up to vocab_size are words that are never encoded but decode to
// text. Throws ModelError if the vocabulary is too small.
std::string byte_tokenizer_json(std::int64_t vocab_size);

}  // namespace penstock::model
