#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace penstock::model {

// Look-up by string_view without a copy.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};
using StringMap = std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>>;

// The rank and the result of a pair of tokens, if it merges. Open addressing: this look-up is
// most of the work of BPE.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank;
    std::int32_t id;
  };
  static constexpr std::uint32_t no_rank = 0xFFFFFFFF;

  void reserve(std::size_t count);
  void set(std::int32_t left, std::int32_t right, Merge merge);  // the last one holds
  Merge find(std::int32_t left, std::int32_t right) const {      // rank no_rank: none
    const std::uint64_t key = pack(left, right);
    for (std::size_t at = hash(key) & mask_;; at = (at + 1) & mask_) {
      if (slots_[at].key == key) return slots_[at].merge;
      if (slots_[at].key == empty_key) return {no_rank, 0};
    }
  }

 private:
  struct Slot {
    std::uint64_t key = empty_key;
    Merge merge{no_rank, 0};
  };
  static constexpr std::uint64_t empty_key = ~std::uint64_t{0};  // no pair: ids are not negative
  static std::uint64_t pack(std::int32_t left, std::int32_t right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 |
           static_cast<std::uint32_t>(right);
  }
  static std::size_t hash(std::uint64_t key) {
    const std::uint64_t mixed = key * 0x9E3779B97F4A7C15ULL;  // Fibonacci hashing
    return static_cast<std::size_t>(mixed ^ mixed >> 32);
  }
  std::vector<Slot> slots_{2};
  std::size_t mask_ = 1;
};

// Working memory of one thread.
struct BpeScratch {
  struct Symbol {
    std::int32_t id;
    std::int32_t previous;  // -1: none
    std::int32_t next;
    bool removed;
  };
  struct Candidate {
    std::uint32_t rank;
    std::int32_t position;
    std::int32_t id;
  };
  std::size_t capacity_bytes() const {
    return ids.capacity() * sizeof(std::int32_t) + symbols.capacity() * sizeof(Symbol) +
           heap.capacity() * sizeof(Candidate);
  }

  std::vector<std::int32_t> ids;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

// A "model" of type BPE of tokenizer.json. Immutable.
// Source of the behaviour: github.com/huggingface/tokenizers, tokenizers/src/models/bpe.
class Bpe {
 public:
  // `words_are_bytes`: encode() is given bytes to be read through byte_alphabet.hpp. Throws
  // ModelError that names what is broken or not supported.
  Bpe(const nlohmann::json& json, bool words_are_bytes);

  // Appends the ids of a word that is not empty. Time is O(n log n).
  void encode(std::string_view word, BpeScratch& scratch, std::vector<std::int32_t>& ids) const;

  const StringMap& vocabulary() const { return vocabulary_; }

 private:
  void read_vocabulary(const nlohmann::json& json);
  void read_merges(const nlohmann::json& json);
  void add_merge(std::size_t rank, std::string_view left, std::string_view right);
  void start(std::string_view word, std::vector<std::int32_t>& ids) const;
  void add_unknown(std::string_view character, std::optional<std::int32_t>& unknown,
                   std::vector<std::int32_t>& ids) const;
  void merge_short(std::vector<std::int32_t>& ids) const;
  void merge_long(BpeScratch& scratch) const;

  StringMap vocabulary_;
  StringMap whole_words_;  // in the form encode() is given them; only where ignore_merges
  MergeTable merges_;
  bool words_are_bytes_;
  bool ignore_merges_ = false;
  bool fuse_unknown_ = false;
  std::optional<std::int32_t> unknown_;
  std::optional<std::array<std::int32_t, 256>> byte_fallback_;  // -1: not in the vocabulary
  std::array<std::int32_t, 256> byte_ids_{};                    // of the byte alphabet; -1: none
};

}  // namespace penstock::model
