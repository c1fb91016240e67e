#include "jobs/record_order.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <unordered_set>

namespace penstock::jobs {
namespace {

// So many bytes of prompt take the time of one token of an answer: prompts go through in chunks of
// some 100 tokens of some 4 bytes, answers token by token.
constexpr std::uint32_t kBytesPerRound = 512;
constexpr double kBytesPerToken = 4;
// Long records begin so much earlier than they must: the pipeline does not always hold as many as
// it could.
constexpr double kMargin = 1.5;
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
double time_of(double line_bytes, double max_tokens, double expected_part) {
  return line_bytes + kBytesPerRound * max_tokens * expected_part;
}
std::uint64_t longest_time(const RecordFacts& facts) {
  return facts.line_bytes + std::uint64_t{facts.max_tokens} * kBytesPerRound;
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
    Group group;
    for (std::uint32_t i = first; i < end; ++i) {
      ++group.records;
      group.line_bytes += members_[i].facts.line_bytes;
      group.max_tokens += members_[i].facts.max_tokens;
    }
    group.next = first;
    group.end = end;
    group.kind =
        end - first >= kOwnKind ? kind_of_group(longest.prefix_hash) : kind_of_sizes(longest);
    groups_.push_back(group);
    kinds.insert(group.kind);
    first = end;
  }
  // Sizes are few, prefixes may differ from window to window.
  lengths_.forget_if(
      [&](RecordKind kind) { return (kind & kGroupBit) != 0 && !kinds.contains(kind); });
  for (Group& group : groups_) group.seen = &lengths_.seen(group.kind);
  given_ = 0;
  spread();
  rank();
}

// Groups of about equal length are spread over the window evenly.
void RecordOrder::spread() {
  std::vector<std::uint32_t> by_length(groups_.size());
  std::iota(by_length.begin(), by_length.end(), 0U);
  std::sort(by_length.begin(), by_length.end(), [&](std::uint32_t a, std::uint32_t b) {
    const Member& of_a = members_[groups_[a].next];
    const Member& of_b = members_[groups_[b].next];
    const std::uint64_t time_a = longest_time(of_a.facts);
    const std::uint64_t time_b = longest_time(of_b.facts);
    return time_a != time_b ? time_a > time_b : of_a.position < of_b.position;
  });
  double whole = 0;
  for (std::size_t rank = 0; rank < by_length.size(); ++rank) {
    // Multiples of the golden ratio, without their whole parts, fill gaps as they go.
    groups_[by_length[rank]].place =
        std::modf(static_cast<double>(rank) * std::numbers::phi, &whole);
  }
}

bool RecordOrder::is_later(const Ranked& a, const Ranked& b) {
  if (a.begin != b.begin) return a.begin > b.begin;
  return a.time != b.time ? a.time < b.time : a.position > b.position;
}

// The current group too: its rest may have turned out to be short.
void RecordOrder::rank() {
  double records = 0;
  double work = 0;       // the time of all records of the window
  double footprint = 0;  // KV tokens of each, half way through, times its time
  for (const Group& group : groups_) {
    const double part = group.seen->expected();
    const double time = time_of(group.line_bytes, group.max_tokens, part);
    const double tokens = group.line_bytes / kBytesPerToken + group.max_tokens * part / 2;
    records += group.records;
    work += time;
    footprint += time * tokens / group.records;
  }
  // Where the KV memory has room for all, nothing speaks against longest first, which takes
  // estimates that are too low better: as if records that begin were the whole window.
  double at_once = std::numeric_limits<double>::infinity();
  const double held = static_cast<double>(room_.kv_tokens) * work / footprint;
  if (held < static_cast<double>(room_.sequences)) at_once = held;
  const double waiting = std::max(static_cast<double>(room_.given) - at_once, 0.0) * work / records;
  ranked_.clear();
  for (std::uint32_t i = 0; i < groups_.size(); ++i) {
    const Group& group = groups_[i];
    if (group.next == group.end) continue;
    const Member& member = members_[group.next];
    const double time =
        time_of(member.facts.line_bytes, member.facts.max_tokens, group.seen->expected());
    // While a record is in the pipeline, others do so much work beside it.
    const double latest = std::max(work - waiting - kMargin * time * at_once, 0.0);
    ranked_.push_back({group.place * latest, time, member.position, i});
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
