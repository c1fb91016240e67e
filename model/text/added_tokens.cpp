#include "model/text/added_tokens.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "io/error.hpp"
#include "io/json.hpp"
#include "model/error.hpp"
#include "model/text/json_fields.hpp"
#include "model/text/unicode_class.hpp"
#include "model/text/utf8.hpp"

namespace penstock::model {
namespace {

constexpr std::size_t longest_token = 4096;  // bytes

void require_short(std::string_view token) {
  if (token.size() <= longest_token) return;
  throw ModelError(fmt::format("tokenizer: an added token has {} bytes; at most {} are allowed",
                               token.size(), longest_token));
}

unsigned char byte_of(char c) { return static_cast<unsigned char>(c); }

}  // namespace

StringSet::StringSet(std::vector<Entry> entries) : entries_(std::move(entries)) {
  std::sort(entries_.begin(), entries_.end(),
            [](const Entry& a, const Entry& b) { return a.text < b.text; });
  for (const Entry& entry : entries_) first_bytes_[byte_of(entry.text.front())] = true;
}

StringSet::Match StringSet::find(std::string_view text, std::size_t from) const {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    if (!first_bytes_[byte_of(text[begin])]) continue;
    Match best{begin, begin, -1};
    auto first = entries_.begin();  // [first, last) begin with text[begin, at)
    auto last = entries_.end();
    for (std::size_t at = begin; at < text.size() && first != last; ++at) {
      const std::size_t depth = at - begin;
      if (first->text.size() == depth) ++first;  // the shortest stands first
      const auto next = byte_of(text[at]);
      first = std::partition_point(
          first, last, [&](const Entry& entry) { return byte_of(entry.text[depth]) < next; });
      last = std::partition_point(
          first, last, [&](const Entry& entry) { return byte_of(entry.text[depth]) == next; });
      if (first != last && first->text.size() == depth + 1) best = {begin, at + 1, first->id};
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
    require_short(content);
    const std::string where = "added token " + io::quoted(content);
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
                      where, io::in_short(declared), id));
    }
    if (token.normalized) {
      token.shown = normalizer.apply(content, rewrite_limit(content.size()), buffer);
      require_short(token.shown);
    }
    if (token.special) special_.insert(content);
    const auto key = static_cast<std::int32_t>(id);
    ids_[content] = key;
    tokens_[key] = std::move(token);
  }
  std::vector<StringSet::Entry> raw;
  std::vector<StringSet::Entry> normalized;
  std::unordered_set<std::string_view> seen;
  for (const auto& [id, token] : tokens_) {
    if (!token.normalized) {
      raw.push_back({token.content, id});
      continue;
    }
    if (token.shown.empty() || !seen.insert(token.shown).second) {
      throw ModelError(fmt::format("tokenizer: added token {} is {} once it is normalized",
                                   io::quoted(token.content),
                                   token.shown.empty() ? "empty" : "the same as another"));
    }
    normalized.push_back({token.shown, id});
  }
  raw_ = StringSet(std::move(raw));
  normalized_ = StringSet(std::move(normalized));
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
