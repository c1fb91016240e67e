#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "model/text/bpe.hpp"
#include "model/text/normalizer.hpp"

namespace penstock::model {

// Strings to be found in a text, the leftmost first and the longest of those.
class StringSet {
 public:
  struct Entry {
    std::string text;  // not empty
    std::int32_t id;
  };
  StringSet() = default;
  // No two texts are equal.
  explicit StringSet(std::vector<Entry> entries);
  bool empty() const { return entries_.empty(); }

  struct Match {
    std::size_t begin;
    std::size_t end;
    std::int32_t id;
  };
  // The first match at or after `from`; begin == text.size() if there is none.
  Match find(std::string_view text, std::size_t from) const;

 private:
  // Sorted bytewise: those that begin alike stand together, and a search narrows that range byte by
  // byte. Unlike a tree of bytes this costs no more memory than the texts.
  std::vector<Entry> entries_;
  std::array<bool, 256> first_bytes_{};
};

// The "added_tokens" of tokenizer.json: tokens that are cut out of the text before anything else.
// Source of the behaviour: github.com/huggingface/tokenizers,
// tokenizers/src/tokenizer/added_vocabulary.rs.
class AddedTokens {
 public:
  // `json` is the list, or null. As in the reference, a token's id is its id in `vocabulary` or
  // the next free one; a file that says another one is refused with a ModelError, and so are
  // tokens above 4 KiB: a text is compared with a token at each of its bytes.
  AddedTokens(const nlohmann::json& json, const StringMap& vocabulary,
              const Normalizer& normalizer);

  struct Token {
    std::string content;
    std::string shown;  // what decoding gets: the content, normalized if the token is
    bool special = false;
    bool single_word = false;
    bool strips_left = false;
    bool strips_right = false;
    bool normalized = false;
  };
  const std::unordered_map<std::int32_t, Token>& tokens() const { return tokens_; }
  const StringMap& ids() const { return ids_; }
  // Whether decoding skips a token of this text.
  bool is_special(std::string_view text) const { return special_.contains(std::string(text)); }

  // Splits at the tokens matched before normalization, or at those matched after it. Calls
  // on_text(begin, end) and on_token(id) in order.
  template <class OnText, class OnToken>
  void split(std::string_view text, bool normalized, OnText&& on_text, OnToken&& on_token) const;

 private:
  // The bounds of a match with the blanks it strips, some of which an earlier match may have taken
  // already; false if it is not a word of its own.
  static bool widen(std::string_view text, const Token& token, std::size_t& begin,
                    std::size_t& end);

  std::unordered_map<std::int32_t, Token> tokens_;
  StringMap ids_;
  std::unordered_set<std::string> special_;
  StringSet raw_;
  StringSet normalized_;
};

template <class OnText, class OnToken>
void AddedTokens::split(std::string_view text, bool normalized, OnText&& on_text,
                        OnToken&& on_token) const {
  const StringSet& set = normalized ? normalized_ : raw_;
  std::size_t done = 0;
  if (!set.empty()) {
    for (std::size_t from = 0; from < text.size();) {
      const StringSet::Match match = set.find(text, from);
      if (match.begin == text.size()) break;
      from = match.end;
      std::size_t begin = match.begin;
      std::size_t end = match.end;
      if (!widen(text, tokens_.at(match.id), begin, end)) continue;
      if (done < begin) on_text(done, begin);
      on_token(match.id);
      done = end;
    }
  }
  if (done != text.size()) on_text(done, text.size());
}

}  // namespace penstock::model
