#include "model/text/tokenizer.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "io/json.hpp"
#include "io/utf8.hpp"
#include "model/error.hpp"
#include "model/text/json_fields.hpp"
#include "model/text/tokenizer_state.hpp"

namespace penstock::model {
namespace {

const nlohmann::json& part_or_null(const nlohmann::json& json, const char* name) {
  static const nlohmann::json null;
  return json.contains(name) ? json[name] : null;
}

}  // namespace

Tokenizer::State::State(const nlohmann::json& json)
    : normalizer(part_or_null(json, "normalizer")),
      pre_tokenizer(part_or_null(json, "pre_tokenizer")),
      bpe(field(json, "model", "tokenizer.json"), pre_tokenizer.gives_bytes()),
      added(part_or_null(json, "added_tokens"), bpe.vocabulary(), normalizer),
      post_processor(part_or_null(json, "post_processor")),
      decoder(part_or_null(json, "decoder")) {
  for (const auto& [token, id] : bpe.vocabulary()) {
    tokens.emplace(id, Shown{token, added.is_special(token)});
  }
  for (const auto& [id, token] : added.tokens()) {
    tokens.insert_or_assign(id, Shown{token.shown, added.is_special(token.shown)});
  }
  for (const auto& [id, token] : tokens) {
    vocab_size = std::max(vocab_size, static_cast<std::size_t>(id) + 1);
  }
}

const Tokenizer::State::Shown* Tokenizer::State::shown(std::int32_t id) const {
  const auto found = tokens.find(id);
  return found == tokens.end() ? nullptr : &found->second;
}

void Tokenizer::State::encode_words(std::string_view text, bool at_start, EncodeScratch& scratch,
                                    std::vector<std::int32_t>& ids) const {
  auto encode_word = [&](std::string_view word) {
    const std::uint64_t hash = WordCache::hash(word);
    if (scratch.cache.find(word, hash, ids)) return;
    const std::size_t before = ids.size();
    bpe.encode(word, scratch.bpe, ids);
    scratch.cache.insert(word, hash, ids.data() + before, ids.size() - before);
  };
  pre_tokenizer.run(text, at_start, scratch.match, WordSink(encode_word));
}

std::unique_ptr<EncodeScratch> Tokenizer::State::take_scratch() const {
  {
    const std::lock_guard lock(mutex_);
    if (!scratches_.empty()) {
      std::unique_ptr<EncodeScratch> scratch = std::move(scratches_.back());
      scratches_.pop_back();
      return scratch;
    }
  }
  return std::make_unique<EncodeScratch>();
}

void Tokenizer::State::give_back(std::unique_ptr<EncodeScratch> scratch) const {
  constexpr std::size_t most_kept_bytes = 4u << 20;  // one huge word must not cost memory for ever
  if (scratch->bpe.capacity_bytes() > most_kept_bytes) scratch->bpe = {};
  const std::lock_guard lock(mutex_);
  scratches_.push_back(std::move(scratch));
}

Tokenizer::Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json) {
  try {
    const nlohmann::json json = io::parse_json(tokenizer_json);
    if (!json.is_object()) throw ModelError("tokenizer: tokenizer.json is not a JSON object");
    if (json.contains("version") && json["version"] != "1.0") {
      throw ModelError(
          fmt::format("tokenizer: tokenizer.json is of version {}, only \"1.0\" is known",
                      io::in_short(json["version"])));
    }
    // "truncation" and "padding" shape batches for training; a prompt is encoded as it is.
    return Tokenizer(std::make_shared<const State>(json));
  } catch (const io::JsonError& error) {
    throw ModelError(fmt::format("tokenizer: tokenizer.json cannot be read: {}", error.what()));
  }
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::string repaired;
  if (!io::is_valid_utf8(text)) {
    repaired = io::to_valid_utf8(text);
    text = repaired;
  }
  std::unique_ptr<EncodeScratch> scratch = state_->take_scratch();
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  if (add_special_tokens) {
    const auto& before = state_->post_processor.before();
    ids.insert(ids.end(), before.begin(), before.end());
  }
  const auto on_token = [&](std::int32_t id) { ids.push_back(id); };
  std::size_t left = rewrite_limit(text.size());  // for what is normalized, of all parts together
  const auto on_raw = [&](std::size_t begin, std::size_t end) {
    std::string normalized;
    std::string_view part = text.substr(begin, end - begin);
    if (!state_->normalizer.empty()) {
      normalized = state_->normalizer.apply(part, left, scratch->match);
      part = normalized;
      left -= std::min(left, part.size());
    }
    state_->added.split(
        part, true,
        [&](std::size_t from, std::size_t to) {
          state_->encode_words(part.substr(from, to - from), begin == 0 && from == 0, *scratch,
                               ids);
        },
        on_token);
  };
  state_->added.split(text, false, on_raw, on_token);
  if (add_special_tokens) {
    const auto& after = state_->post_processor.after();
    ids.insert(ids.end(), after.begin(), after.end());
  }
  state_->give_back(std::move(scratch));
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  const std::unique_ptr<DecodeStage> chain = state_->decoder.start(text);
  for (const std::int32_t id : ids) {
    const State::Shown* token = state_->shown(id);
    if (token != nullptr && !(skip_special_tokens && token->special)) {
      chain->push(token->text, true);
    }
  }
  chain->finish();
  return text;
}

std::size_t Tokenizer::vocab_size() const { return state_->vocab_size; }

std::optional<std::int32_t> Tokenizer::token_to_id(std::string_view token) const {
  for (const StringMap* map : {&state_->added.ids(), &state_->bpe.vocabulary()}) {
    if (const auto found = map->find(token); found != map->end()) return found->second;
  }
  return std::nullopt;
}

std::string_view Tokenizer::id_to_token(std::int32_t id) const {
  const State::Shown* token = state_->shown(id);
  return token == nullptr ? std::string_view() : token->text;
}

bool Tokenizer::is_special(std::int32_t id) const {
  const State::Shown* token = state_->shown(id);
  return token != nullptr && token->special;
}

}  // namespace penstock::model
