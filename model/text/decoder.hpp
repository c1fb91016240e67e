#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "model/text/regex.hpp"

namespace penstock::model {

// One decoding under way: a stage of the chain of decoders. Decoding at once and decoding token by
// token are the same code, so they give the same text.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  // A part of a token's text; `is_first_part`: a token begins.
  virtual void push(std::string_view part, bool is_first_part) = 0;
  virtual void finish() = 0;
};

// The "decoder" of tokenizer.json: puts tokens together to text. Immutable.
class Decoder {
 public:
  // Throws ModelError that names what is broken or not supported. `json` may be null: tokens are
  // put together with blanks between them.
  explicit Decoder(const nlohmann::json& json);
  ~Decoder();
  Decoder(Decoder&&) noexcept;
  Decoder& operator=(Decoder&&) noexcept;

  // A chain that appends what is certain so far to `text`: whole characters only, never taken
  // back. The decoder and `text` outlive it. Each push() is a whole token; it throws ModelError
  // where Replace makes more of the tokens than rewrite_limit() allows.
  std::unique_ptr<DecodeStage> start(std::string& text) const;

  class Part;
  struct Chain;

 private:
  void add(const nlohmann::json& json, int depth);

  std::vector<std::unique_ptr<const Part>> parts_;
  bool joins_with_blanks_ = false;
};

}  // namespace penstock::model
