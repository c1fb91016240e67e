#include "jobs/answer_lengths.hpp"

#include <algorithm>

namespace penstock::jobs {

double AnswerLengths::Seen::expected() const {
  // As if one answer that had all it may had been seen before.
  return std::min((parts + 1) / (complete + 1), 1.0);
}

void AnswerLengths::learn(RecordKind kind, std::uint32_t max_tokens, std::uint32_t tokens,
                          bool complete) {
  Seen& seen = seen_[kind];
  seen.parts += static_cast<double>(tokens) / max_tokens;
  if (complete) ++seen.complete;
}

}  // namespace penstock::jobs
