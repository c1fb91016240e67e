#pragma once

#include <cstdint>
#include <unordered_map>

namespace penstock::jobs {

// Records whose answers are expected to be alike in length have one kind.
using RecordKind = std::uint64_t;

// What the answers so far tell about the length of others of their kind, as a part of the most that
// each may have. Not thread-safe.
class AnswerLengths {
 public:
  // Short answers are complete first, so the mean of the complete ones would be too small for long.
  // This is the mean that fits all tokens seen, those of answers under way too, if an answer ends
  // at any token with the same chance: all tokens over all ends.
  struct Seen {
    double parts = 0;     // of the tokens: each counts 1 / max_tokens
    double complete = 0;  // answers
    // The part of the most that is expected: above 0, at most 1. Before anything is known it is 1,
    // so that kinds that are not known are tried early.
    double expected() const;
  };

  // `tokens` more of an answer that may have `max_tokens`, at least 1.
  void learn(RecordKind kind, std::uint32_t max_tokens, std::uint32_t tokens, bool complete);
  // Stays valid until the kind is forgotten.
  const Seen& seen(RecordKind kind) { return seen_[kind]; }
  template <typename Condition>
  void forget_if(const Condition& condition) {
    std::erase_if(seen_, [&](const auto& entry) { return condition(entry.first); });
  }

 private:
  std::unordered_map<RecordKind, Seen> seen_;
};

}  // namespace penstock::jobs
