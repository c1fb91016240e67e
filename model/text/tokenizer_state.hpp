#pragma once

#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/text/added_tokens.hpp"
#include "model/text/bpe.hpp"
#include "model/text/decoder.hpp"
#include "model/text/normalizer.hpp"
#include "model/text/post_processor.hpp"
#include "model/text/pre_tokenizer.hpp"
#include "model/text/tokenizer.hpp"
#include "model/text/word_cache.hpp"

namespace penstock::model {

// Working memory of one encode() under way.
struct EncodeScratch {
  MatchBuffer match;
  BpeScratch bpe;
  WordCache cache;
};

struct Tokenizer::State {
  explicit State(const nlohmann::json& json);

  // nullptr if no token has the id.
  struct Shown {
    std::string_view text;  // what decoding gets
    bool special;
  };
  const Shown* shown(std::int32_t id) const;

  void encode_words(std::string_view text, bool at_start, EncodeScratch& scratch,
                    std::vector<std::int32_t>& ids) const;

  // The caches outlive a call, each is used by one call at a time: as many as there ever were
  // calls at once.
  std::unique_ptr<EncodeScratch> take_scratch() const;
  void give_back(std::unique_ptr<EncodeScratch> scratch) const;

  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  AddedTokens added;
  PostProcessor post_processor;
  Decoder decoder;
  std::unordered_map<std::int32_t, Shown> tokens;  // views into bpe and added
  std::size_t vocab_size = 0;

 private:
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<EncodeScratch>> scratches_;
};

}  // namespace penstock::model
