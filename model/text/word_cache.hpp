#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

namespace penstock::model {

// The ids of words seen before, of one thread and one tokenizer. A fixed table in which a word
// replaces whatever word stands at its place, so memory stays bounded and nothing is ever cleared.
class WordCache {
 public:
  // Appends the ids and returns true if the word is there.
  bool find(std::string_view word, std::uint64_t hash, std::vector<std::int32_t>& ids) const {
    if (word.size() > longest_word) return false;
    const Slot& slot = slots_[hash % slot_count];
    if (slot.hash != hash || slot.word_size != word.size() ||
        std::memcmp(slot.word.data(), word.data(), word.size()) != 0) {
      return false;
    }
    ids.insert(ids.end(), slot.ids.begin(), slot.ids.begin() + slot.id_count);
    return true;
  }

  void insert(std::string_view word, std::uint64_t hash, const std::int32_t* ids,
              std::size_t count) {
    if (word.size() > longest_word || count > most_ids) return;
    Slot& slot = slots_[hash % slot_count];
    slot.hash = hash;
    slot.word_size = static_cast<std::uint8_t>(word.size());
    slot.id_count = static_cast<std::uint8_t>(count);
    std::memcpy(slot.word.data(), word.data(), word.size());
    std::memcpy(slot.ids.data(), ids, count * sizeof *ids);
  }

  static std::uint64_t hash(std::string_view word) {
    // Multiply and fold, eight bytes at a time; only speed depends on its quality.
    std::uint64_t h = word.size() * 0x9E3779B97F4A7C15ULL;
    std::size_t at = 0;
    for (; at + 8 <= word.size(); at += 8) h = mix(h, word.data() + at, 8);
    return mix(h, word.data() + at, word.size() - at);
  }

 private:
  static constexpr std::size_t longest_word = 53;
  static constexpr std::size_t most_ids = 16;
  static constexpr std::size_t slot_count = std::size_t{1} << 14;
  struct alignas(64) Slot {  // two cache lines
    std::uint64_t hash = 0;
    std::uint8_t word_size = 0;  // no word is empty: 0 is a free slot
    std::uint8_t id_count = 0;
    std::array<char, longest_word + 1> word{};
    std::array<std::int32_t, most_ids> ids{};
  };
  static_assert(sizeof(Slot) == 128);

  static std::uint64_t mix(std::uint64_t h, const char* bytes, std::size_t count) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes, count);
    h = (h ^ value) * 0xD6E8FEB86659FD93ULL;
    return h ^ h >> 32;
  }

  std::unique_ptr<Slot[]> slots_ = std::make_unique<Slot[]>(slot_count);
};

}  // namespace penstock::model
