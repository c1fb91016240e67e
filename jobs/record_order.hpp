#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "jobs/answer_lengths.hpp"

namespace penstock::jobs {

// What is known of a record before its line is read.
struct RecordFacts {
  std::uint32_t line_bytes = 0;   // stands for the prompt's length
  std::uint32_t max_tokens = 1;   // of the answer, at least 1
  std::uint32_t prefix_hash = 0;  // equal: the lines begin alike
};

// How much of a window is in the pipeline at once.
struct PipelineRoom {
  std::uint64_t sequences = 0;  // that are computed at once, at most
  std::uint64_t given = 0;      // records that are computed or wait for that, at most
  std::uint64_t kv_tokens = 0;
};

// The order in which the records of a window are worked on. Where the KV memory has room for all
// sequences: longest first. Where it has not, many long ones at once would fill it, and few rows
// share each step: lengths are mixed then, as far as the long ones still end with the window.
// Either way the short ones are left for the pipeline's drain. Records with equal prefixes stay
// together, a group placed by its longest record.
//
// A record is in the pipeline for a round a token of its answer, and for a round a chunk of its
// prompt. How long answers get is learnt as they come, by kind: groups of equal prefixes with many
// records are a kind each, the others are told apart by the sizes of line and max_tokens, in powers
// of two. From time to time what is left of the window is ordered anew.
//
// Pure; the same calls give the same order. Not thread-safe. Memory is bounded by the window's.
class RecordOrder {
 public:
  // For the windows that begin from now on.
  void set_room(const PipelineRoom& room) { room_ = room; }

  // Takes a window in hand, when the one before is through.
  void begin(const std::vector<RecordFacts>& window);

  struct Next {
    std::uint32_t position = 0;  // in the window
    RecordKind kind = 0;         // for learn()
  };
  std::optional<Next> next();  // empty: the window is through

  // Tokens came of an answer of that kind, which may belong to any window.
  void learn(RecordKind kind, std::uint32_t max_tokens, std::uint32_t tokens, bool complete);

 private:
  struct Member {
    RecordFacts facts;
    std::uint32_t position = 0;
  };
  struct Group {
    std::uint32_t next = 0;  // in members_
    std::uint32_t end = 0;
    RecordKind kind = 0;
    const AnswerLengths::Seen* seen = nullptr;
    double records = 0;     // all of them, also when they are given out
    double line_bytes = 0;  // of all
    double max_tokens = 0;
    double place = 0;  // 0 to 1: where between its earliest and its latest begin
  };
  struct Ranked {
    double begin = 0;            // work of the window that is to be given out before
    double time = 0;             // that its next record is expected to take
    std::uint32_t position = 0;  // of that record
    std::uint32_t group = 0;
  };
  static bool is_later(const Ranked& a, const Ranked& b);
  void spread();
  void rank();

  PipelineRoom room_;
  AnswerLengths lengths_;
  std::vector<Member> members_;  // group by group, in a group the longest first
  std::vector<Group> groups_;
  std::vector<Ranked> ranked_;  // a heap of the groups that have records, but for the current one
  std::size_t current_ = 0;     // group
  std::size_t given_ = 0;
  std::size_t rank_at_ = 0;  // when so many are given
  bool learnt_ = false;      // since the groups were ranked
};

}  // namespace penstock::jobs
