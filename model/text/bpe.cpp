#include "model/text/bpe.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "io/error.hpp"
#include "io/json.hpp"
#include "model/error.hpp"
#include "model/text/byte_alphabet.hpp"
#include "model/text/json_fields.hpp"
#include "model/text/utf8.hpp"

namespace penstock::model {
namespace {

constexpr std::string_view part = "model BPE";

// Above it, the quadratic method is slower than the heap.
constexpr std::size_t longest_short_word = 48;

std::optional<std::string> optional_text(const nlohmann::json& json, const char* name) {
  if (!json.contains(name) || json[name].is_null()) return std::nullopt;
  return text_field(json, name, part);
}

bool optional_flag(const nlohmann::json& json, const char* name) {
  return json.contains(name) && !json[name].is_null() && flag_field(json, name, part);
}

}  // namespace

void MergeTable::reserve(std::size_t count) {
  std::size_t size = 2;
  while (size < count * 2 + 1) size *= 2;
  slots_.assign(size, Slot{});
  mask_ = size - 1;
}

void MergeTable::set(std::int32_t left, std::int32_t right, Merge merge) {
  const std::uint64_t key = pack(left, right);
  std::size_t at = hash(key) & mask_;
  while (slots_[at].key != empty_key && slots_[at].key != key) at = (at + 1) & mask_;
  slots_[at] = {key, merge};
}

Bpe::Bpe(const nlohmann::json& json, bool words_are_bytes) : words_are_bytes_(words_are_bytes) {
  // Files from before the field "type" hold BPE too, known by their merges.
  const std::string type = json.is_object() && !json.contains("type") && json.contains("merges")
                               ? "BPE"
                               : text_field(json, "type", "the model");
  if (type != "BPE") {
    throw ModelError(
        fmt::format("tokenizer: the model {} is not supported, only BPE is", io::quoted(type)));
  }
  if (json.contains("dropout") && !json["dropout"].is_null()) {
    const nlohmann::json& dropout = json["dropout"];
    if (!dropout.is_number() || dropout.get<double>() != 0.0) {
      throw ModelError("tokenizer: 'dropout' of model BPE is not 0: ids would be random");
    }
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!optional_text(json, affix).value_or("").empty()) {
      throw ModelError(fmt::format("tokenizer: '{}' of model BPE is not supported", affix));
    }
  }
  ignore_merges_ = optional_flag(json, "ignore_merges");
  fuse_unknown_ = optional_flag(json, "fuse_unk");
  read_vocabulary(field(json, "vocab", part));
  read_merges(field(json, "merges", part));
  if (const auto unknown = optional_text(json, "unk_token")) {
    const auto found = vocabulary_.find(*unknown);
    if (found == vocabulary_.end()) {
      throw ModelError(fmt::format("tokenizer: unk_token {} of model BPE is not in its vocab",
                                   io::quoted(*unknown)));
    }
    unknown_ = found->second;
  }
  const auto id_of = [&](std::string_view token) {
    const auto found = vocabulary_.find(token);
    return found == vocabulary_.end() ? -1 : found->second;
  };
  for (std::size_t byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = id_of(to_byte_alphabet(std::string(1, static_cast<char>(byte))));
  }
  if (optional_flag(json, "byte_fallback")) {
    byte_fallback_.emplace();
    for (std::size_t byte = 0; byte < 256; ++byte) {
      (*byte_fallback_)[byte] = id_of(fmt::format("<0x{:02X}>", byte));
    }
  }
  if (!ignore_merges_) return;
  for (const auto& [token, id] : vocabulary_) {
    const auto word = words_are_bytes_ ? from_byte_alphabet(token) : token;
    if (word) whole_words_.emplace(*word, id);
  }
}

void Bpe::read_vocabulary(const nlohmann::json& json) {
  if (!json.is_object()) throw ModelError("tokenizer: 'vocab' of model BPE is not an object");
  std::unordered_map<std::int32_t, std::string_view> taken;
  for (const auto& [token, value] : json.items()) {
    const std::optional<std::int32_t> id = token_id(value);
    if (!id) {
      throw ModelError(fmt::format(
          "tokenizer: the id of {} in 'vocab' is {}, not an integer from 0 to 2147483647",
          io::quoted(token), io::in_short(value)));
    }
    const auto added = vocabulary_.emplace(token, *id);
    const auto owner = taken.emplace(*id, added.first->first);
    if (!owner.second) {
      throw ModelError(fmt::format("tokenizer: {} and {} in 'vocab' have the same id {}",
                                   io::quoted(owner.first->second), io::quoted(token), *id));
    }
  }
}

void Bpe::read_merges(const nlohmann::json& json) {
  if (!json.is_array()) throw ModelError("tokenizer: 'merges' of model BPE is not a list");
  merges_.reserve(json.size());
  std::size_t rank = 0;
  for (const nlohmann::json& merge : json) {
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      const std::size_t space = text.find(' ');
      if (space == text.npos || text.find(' ', space + 1) != text.npos) {
        throw ModelError(fmt::format("tokenizer: merge {} is {}, not two tokens and a space", rank,
                                     io::quoted(text)));
      }
      add_merge(rank, std::string_view(text).substr(0, space),
                std::string_view(text).substr(space + 1));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      add_merge(rank, merge[0].get_ref<const std::string&>(),
                merge[1].get_ref<const std::string&>());
    } else {
      throw ModelError(fmt::format("tokenizer: merge {} is neither 'a b' nor [a, b]", rank));
    }
    ++rank;
  }
}

void Bpe::add_merge(std::size_t rank, std::string_view left, std::string_view right) {
  if (rank >= MergeTable::no_rank) throw ModelError("tokenizer: too many merges");
  const auto id_of = [&](std::string_view token) {
    const auto found = vocabulary_.find(token);
    if (found == vocabulary_.end()) {
      throw ModelError(
          fmt::format("tokenizer: merge {} ({} and {}) needs {}, which is not "
                      "in 'vocab'",
                      rank, io::quoted(left), io::quoted(right), io::quoted(token)));
    }
    return found->second;
  };
  const std::int32_t left_id = id_of(left);
  const std::int32_t right_id = id_of(right);
  merges_.set(left_id, right_id,
              {static_cast<std::uint32_t>(rank), id_of(std::string(left) + std::string(right))});
}

void Bpe::encode(std::string_view word, BpeScratch& scratch, std::vector<std::int32_t>& ids) const {
  if (ignore_merges_) {
    if (const auto whole = whole_words_.find(word); whole != whole_words_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  constexpr std::size_t longest_word = std::size_t{1} << 29;  // symbols are indexed by int32
  if (word.size() > longest_word) {
    throw ModelError(fmt::format("tokenizer: a word of {} bytes is too long", word.size()));
  }
  scratch.ids.clear();
  start(word, scratch.ids);
  if (scratch.ids.size() <= longest_short_word) {
    merge_short(scratch.ids);
  } else {
    merge_long(scratch);
  }
  ids.insert(ids.end(), scratch.ids.begin(), scratch.ids.end());
}

// The characters of the word as tokens.
void Bpe::start(std::string_view word, std::vector<std::int32_t>& ids) const {
  std::optional<std::int32_t> unknown;  // held back: more of them may be fused into it
  const auto add = [&](std::int32_t id) {
    if (unknown) ids.push_back(*unknown);
    unknown.reset();
    ids.push_back(id);
  };
  if (words_are_bytes_) {
    for (const char c : word) {
      const std::int32_t id = byte_ids_[static_cast<unsigned char>(c)];
      if (id >= 0) {
        add(id);
      } else {
        add_unknown(to_byte_alphabet(std::string_view(&c, 1)), unknown, ids);
      }
    }
  } else {
    for (std::size_t at = 0; at < word.size();) {
      const std::string_view character = word.substr(at, decode_utf8(word, at).size_bytes);
      at += character.size();
      if (const auto found = vocabulary_.find(character); found != vocabulary_.end()) {
        add(found->second);
      } else {
        add_unknown(character, unknown, ids);
      }
    }
  }
  if (unknown) ids.push_back(*unknown);
}

void Bpe::add_unknown(std::string_view character, std::optional<std::int32_t>& unknown,
                      std::vector<std::int32_t>& ids) const {
  if (byte_fallback_) {
    const auto id_of = [&](char byte) {
      return (*byte_fallback_)[static_cast<unsigned char>(byte)];
    };
    if (std::all_of(character.begin(), character.end(), [&](char b) { return id_of(b) >= 0; })) {
      // As in the reference, a held-back unknown token comes behind these.
      for (const char byte : character) ids.push_back(id_of(byte));
      return;
    }
  }
  if (!unknown_) return;
  if (unknown && !fuse_unknown_) ids.push_back(*unknown);
  unknown = unknown_;
}

// The pair of the lowest rank merges first, the leftmost of equals.
void Bpe::merge_short(std::vector<std::int32_t>& ids) const {
  std::array<MergeTable::Merge, longest_short_word> pairs;
  std::size_t count = ids.size();
  if (count < 2) return;
  for (std::size_t i = 0; i + 1 < count; ++i) pairs[i] = merges_.find(ids[i], ids[i + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == MergeTable::no_rank) break;
    ids[best] = pairs[best].id;
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      pairs[i - 1] = pairs[i];
    }
    --count;
    if (best > 0) pairs[best - 1] = merges_.find(ids[best - 1], ids[best]);
    if (best + 1 < count) pairs[best] = merges_.find(ids[best], ids[best + 1]);
  }
  ids.resize(count);
}

void Bpe::merge_long(BpeScratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  const auto count = static_cast<std::int32_t>(scratch.ids.size());
  for (std::int32_t i = 0; i < count; ++i) {
    symbols.push_back(
        {scratch.ids[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1, false});
  }
  const auto at = [&](std::int32_t i) -> BpeScratch::Symbol& {
    return symbols[static_cast<std::size_t>(i)];
  };
  const auto later = [](const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  const auto consider = [&](std::int32_t position) {
    if (position < 0 || at(position).next < 0) return;
    const auto merge = merges_.find(at(position).id, at(at(position).next).id);
    if (merge.rank == MergeTable::no_rank) return;
    heap.push_back({merge.rank, position, merge.id});
    std::push_heap(heap.begin(), heap.end(), later);
  };
  for (std::int32_t i = 0; i < count; ++i) consider(i);
  while (!heap.empty()) {
    const BpeScratch::Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), later);
    heap.pop_back();
    BpeScratch::Symbol& left = at(top.position);
    if (left.removed || left.next < 0) continue;
    BpeScratch::Symbol& right = at(left.next);
    const auto merge = merges_.find(left.id, right.id);  // one of the two may have changed
    if (merge.rank == MergeTable::no_rank || merge.id != top.id) continue;
    left.id = top.id;
    right.removed = true;
    left.next = right.next;
    if (left.next >= 0) at(left.next).previous = top.position;
    consider(left.previous);
    consider(top.position);
  }
  scratch.ids.clear();
  for (std::int32_t i = count > 0 ? 0 : -1; i >= 0; i = at(i).next) scratch.ids.push_back(at(i).id);
}

}  // namespace penstock::model
