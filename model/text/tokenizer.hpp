#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::model {

// A tokenizer as tokenizer.json (the format of Hugging Face's tokenizers library) describes it:
// BPE models. Immutable after construction; all methods are const and thread-safe.
class Tokenizer {
 public:
  // Throws ModelError that names the part of the file that is broken or not supported.
  static Tokenizer from_json(std::string_view tokenizer_json);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // `add_special_tokens` applies the post-processor (BOS). Special-token text in `text` becomes the
  // special token, as in the reference. Invalid UTF-8 is replaced by U+FFFD first, as Python's
  // bytes.decode("utf-8", "replace") does.
  std::vector<std::int32_t> encode(std::string_view text, bool add_special_tokens) const;

  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const;

  std::size_t vocab_size() const;  // highest id + 1, added tokens included
  std::optional<std::int32_t> token_to_id(std::string_view token) const;
  std::string_view id_to_token(std::int32_t id) const;  // "" if unknown
  bool is_special(std::int32_t id) const;

 private:
  friend class StreamDecoder;
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

// Decodes token by token; the pieces put together equal decode() of all ids with special tokens
// skipped. A piece never ends inside a UTF-8 character.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  std::string push(std::int32_t id);
  // What is left: an incomplete character becomes U+FFFD, as decode() would give it.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock::model
