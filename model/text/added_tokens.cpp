#include "model/text/added_tokens.hpp"

#include <fmt/format.h>

#include <limits>

#include "model/error.hpp"
#include "model/text/json_fields.hpp"
#include "model/text/unicode_class.hpp"
#include "model/text/utf8.hpp"

namespace penstock::model {

bool StringSet::add(std::string_view text, std::int32_t id) {
  first_bytes_[static_cast<unsigned char>(text.front())] = true;
  std::size_t node = 0;
  for (const char c : text) {
    const auto [next, is_new] = nodes_[node].next.try_emplace(c, nodes_.size());
    node = next->second;
    if (is_new) nodes_.emplace_back();
  }
  if (nodes_[node].id >= 0) return false;
  nodes_[node].id = id;
  return true;
}

StringSet::Match StringSet::find(std::string_view text, std::size_t from) const {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    if (!first_bytes_[static_cast<unsigned char>(text[begin])]) continue;
    Match best{begin, begin, -1};
    std::size_t node = 0;
    for (std::size_t at = begin; at < text.size(); ++at) {
      const auto next = nodes_[node].next.find(text[at]);
      if (next == nodes_[node].next.end()) break;
      node = next->second;
      if (nodes_[node].id >= 0) best = {begin, at + 1, nodes_[node].id};
    }
    if (best.id >= 0) return best;
  }
  return {text.size(), text.size(), -1};
}

AddedTokens::AddedTokens(const nlohmann::json& json, const StringMap& vocabulary,
                         const Normalizer& normalizer) {
  if (json.is_null()) return;
  if (!json.is_array()) throw ModelError("tokenizer: 'added_tokens' is not a list");
  MatchBuffer buffer;
  std::int64_t next_id = static_cast<std::int64_t>(vocabulary.size());
  for (const nlohmann::json& item : json) {
    const std::string content = text_field(item, "content", "an added token");
    const std::string where = fmt::format("added token '{}'", content);
    Token token{content,
                content,
                flag_field(item, "special", where),
                flag_field(item, "single_word", where),
                flag_field(item, "lstrip", where),
                flag_field(item, "rstrip", where),
                flag_field(item, "normalized", where)};
    if (content.empty()) continue;
    const nlohmann::json& declared = field(item, "id", where);
    std::int64_t id = 0;
    if (const auto again = ids_.find(content); again != ids_.end()) {
      id = again->second;
    } else if (const auto known = vocabulary.find(content); known != vocabulary.end()) {
      id = known->second;
    } else {
      id = next_id++;
    }
    if (id > std::numeric_limits<std::int32_t>::max()) {
      throw ModelError(fmt::format("tokenizer: {} gets the id {}, which is too large", where, id));
    }
    if (token_id(declared) != id) {
      throw ModelError(
          fmt::format("tokenizer: {} says its id is {}, but its place in the "
                      "vocabulary is {}",
                      where, declared.dump(), id));
    }
    if (token.normalized) token.shown = normalizer.apply(content, buffer);
    if (token.special) special_.insert(content);
    const auto key = static_cast<std::int32_t>(id);
    ids_[content] = key;
    tokens_[key] = std::move(token);
  }
  for (const auto& [id, token] : tokens_) {
    StringSet& set = token.normalized ? normalized_ : raw_;
    const std::string& text = token.normalized ? token.shown : token.content;
    if (text.empty() || !set.add(text, id)) {
      throw ModelError(fmt::format("tokenizer: added token '{}' is {} once it is normalized",
                                   token.content, text.empty() ? "empty" : "the same as another"));
    }
  }
}

bool AddedTokens::widen(std::string_view text, const Token& token, std::size_t& begin,
                        std::size_t& end) {
  if (token.single_word) {
    if (begin > 0 && is_word(decode_utf8_before(text, begin).value)) return false;
    if (end < text.size() && is_word(decode_utf8(text, end).value)) return false;
  }
  while (token.strips_left && begin > 0) {
    const CodePoint c = decode_utf8_before(text, begin);
    if (!is_whitespace(c.value)) break;
    begin -= c.size_bytes;
  }
  while (token.strips_right && end < text.size()) {
    const CodePoint c = decode_utf8(text, end);
    if (!is_whitespace(c.value)) break;
    end += c.size_bytes;
  }
  return true;
}

}  // namespace penstock::model
