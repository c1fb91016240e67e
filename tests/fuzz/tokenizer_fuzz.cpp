// Hostile tokenizer.json, and hostile text and ids for a tokenizer that loads: the input up to the
// first line that is "---" is the file, the rest is text. Streaming must give what decoding gives.
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "io/utf8.hpp"
#include "model/error.hpp"
#include "model/text/tokenizer.hpp"

namespace {

using penstock::model::StreamDecoder;
using penstock::model::Tokenizer;

constexpr std::string_view byte_level_json = R"({
  "added_tokens": [{"id": 4, "content": "<x>", "special": true, "single_word": false,
                    "lstrip": true, "rstrip": true, "normalized": false}],
  "normalizer": {"type": "NFC"},
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Digits", "individual_digits": true},
    {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "use_regex": true},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u00c3": 3}, "merges": ["a b"]}})";

void check(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids = tokenizer.encode(text, true);
  for (const char c : text) ids.push_back(c);  // ids that no text gives
  std::string streamed;
  StreamDecoder stream(tokenizer);
  for (const std::int32_t id : ids) {
    const std::string piece = stream.push(id);
    if (!penstock::io::is_valid_utf8(piece)) std::abort();
    streamed += piece;
  }
  streamed += stream.finish();
  if (streamed != tokenizer.decode(ids, true)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = input.find("\n---\n");
  const std::string_view text = cut == input.npos ? input : input.substr(cut + 5);
  try {
    static const Tokenizer fixed = Tokenizer::from_json(byte_level_json);
    check(fixed, text);
    check(Tokenizer::from_json(input.substr(0, cut)), text);
  } catch (const penstock::model::ModelError&) {
  }
  return 0;
}
