#include "jobs/record_order.hpp"

#include <algorithm>
#include <bit>
#include <unordered_set>

namespace penstock::jobs {
namespace {

// So many bytes of prompt take the time of one token of an answer: prompts go through in chunks of
// some 100 tokens of some 4 bytes, answers token by token.
constexpr std::uint64_t kBytesPerRound = 512;
// Groups of equal prefixes of fewer records are no kind of their own: nothing could be learnt in
// time.
constexpr std::uint32_t kOwnKind = 16;
// Groups are ranked anew after so many records, and, since ranking takes time, after a record for
// so many groups.
constexpr std::size_t kLeastBetweenRankings = 64;
constexpr std::size_t kGroupsToRankForARecord = 32;

constexpr RecordKind kGroupBit = RecordKind{1} << 63;

RecordKind kind_of_group(std::uint32_t prefix_hash) { return kGroupBit | prefix_hash; }

RecordKind kind_of_sizes(const RecordFacts& facts) {
  return RecordKind(std::bit_width(facts.line_bytes)) << 8 |
         RecordKind(std::bit_width(facts.max_tokens));
}

// In units of 1 / kBytesPerRound of a round.
double time(const RecordFacts& facts, double expected_part) {
  return facts.line_bytes + static_cast<double>(facts.max_tokens * kBytesPerRound) * expected_part;
}
std::uint64_t longest_time(const RecordFacts& facts) {
  return facts.line_bytes + facts.max_tokens * kBytesPerRound;
}

}  // namespace

void RecordOrder::begin(const std::vector<RecordFacts>& window) {
  members_.clear();
  members_.reserve(window.size());
  for (const RecordFacts& facts : window) {
    members_.push_back({facts, static_cast<std::uint32_t>(members_.size())});
  }
  std::sort(members_.begin(), members_.end(), [](const Member& a, const Member& b) {
    if (a.facts.prefix_hash != b.facts.prefix_hash) {
      return a.facts.prefix_hash < b.facts.prefix_hash;
    }
    const std::uint64_t of_a = longest_time(a.facts);
    const std::uint64_t of_b = longest_time(b.facts);
    return of_a != of_b ? of_a > of_b : a.position < b.position;
  });
  groups_.clear();
  std::unordered_set<RecordKind> kinds;
  for (std::uint32_t first = 0; first < members_.size();) {
    const RecordFacts& longest = members_[first].facts;
    std::uint32_t end = first + 1;
    while (end < members_.size() && members_[end].facts.prefix_hash == longest.prefix_hash) ++end;
    const RecordKind kind =
        end - first >= kOwnKind ? kind_of_group(longest.prefix_hash) : kind_of_sizes(longest);
    groups_.push_back({first, end, kind, nullptr});
    kinds.insert(kind);
    first = end;
  }
  // Sizes are few, prefixes may differ from window to window.
  lengths_.forget_if(
      [&](RecordKind kind) { return (kind & kGroupBit) != 0 && !kinds.contains(kind); });
  for (Group& group : groups_) group.seen = &lengths_.seen(group.kind);
  given_ = 0;
  current_ = 0;
  rank();
}

bool RecordOrder::is_later(const Ranked& a, const Ranked& b) {
  return a.time != b.time ? a.time < b.time : a.position > b.position;
}

// The current group too: its rest may have turned out to be short.
void RecordOrder::rank() {
  ranked_.clear();
  for (std::uint32_t i = 0; i < groups_.size(); ++i) {
    const Group& group = groups_[i];
    if (group.next == group.end) continue;
    const Member& member = members_[group.next];
    ranked_.push_back({time(member.facts, group.seen->expected()), member.position, i});
  }
  std::make_heap(ranked_.begin(), ranked_.end(), is_later);
  current_ = groups_.size();  // none
  rank_at_ = given_ + std::max(groups_.size() / kGroupsToRankForARecord, kLeastBetweenRankings);
  learnt_ = false;
}

std::optional<RecordOrder::Next> RecordOrder::next() {
  if (given_ == members_.size()) return std::nullopt;
  if (learnt_ && given_ >= rank_at_) rank();
  if (current_ == groups_.size() || groups_[current_].next == groups_[current_].end) {
    std::pop_heap(ranked_.begin(), ranked_.end(), is_later);
    current_ = ranked_.back().group;
    ranked_.pop_back();
  }
  Group& group = groups_[current_];
  ++given_;
  return Next{members_[group.next++].position, group.kind};
}

void RecordOrder::learn(RecordKind kind, std::uint32_t max_tokens, std::uint32_t tokens,
                        bool complete) {
  lengths_.learn(kind, max_tokens, tokens, complete);
  learnt_ = true;
}

}  // namespace penstock::jobs
