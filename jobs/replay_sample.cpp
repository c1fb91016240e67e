#include "jobs/replay_sample.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "jobs/record_order.hpp"

namespace penstock::jobs {
namespace {

// As Dataset has them.
constexpr std::uint64_t kWindowRecords = 65536;
// As a line of such a prompt has, about, where there is none. None begins like another one, then.
constexpr std::uint32_t kBytesPerToken = 4;
// A replay spends so much of a token's time on each token of a prompt, and on each record.
constexpr double kWorkOfPromptToken = 0.02;
constexpr double kWorkOfRecord = 5;

// In lifetimes: all tokens that the pipeline answers while a long record is in it. After one, the
// short records that began with it have made room for others, and what runs at once is about as it
// stays; where there is time, a third of the sample goes by before its middle.
constexpr double kBeforeMiddle = 2;
constexpr double kLeastMiddle = 1;
constexpr double kBehindMiddle = 0.5;
// The run's order has no long record begin in the last 1.5.
constexpr double kTail = 1;
// Of all tokens so many are of records that are no longer than a "long" one: a few giants would
// take longer than anybody can wait.
constexpr double kNotGiants = 0.9;
// Tokens that a sample has at most: some seconds of replay.
constexpr double kMostTokens = 3e7;

double tokens_of(const std::vector<ReplayRecord>& records) {
  return mean_lengths(records).answer * static_cast<double>(records.size());
}

std::uint32_t long_answer(const std::vector<ReplayRecord>& records) {
  std::vector<std::uint32_t> answers;
  answers.reserve(records.size());
  for (const ReplayRecord& record : records) answers.push_back(record.answer_tokens);
  std::sort(answers.begin(), answers.end());
  double left = kNotGiants * tokens_of(records);
  for (const std::uint32_t answer : answers) {
    left -= answer;
    if (left <= 0) return answer;
  }
  return answers.back();
}

PipelineRoom room_of(const SchedulerLimits& limits) {
  const std::uint64_t sequences = std::min(limits.max_sequences, limits.max_step_tokens);
  return {sequences * limits.slots, sequences * (limits.slots + 1),
          std::uint64_t{limits.kv_blocks} * model::kKvBlockTokens};
}

}  // namespace

MeanLengths mean_lengths(const std::vector<ReplayRecord>& lengths) {
  MeanLengths sum;
  for (const ReplayRecord& record : lengths) {
    sum.prompt += record.prompt_tokens;
    sum.answer += record.answer_tokens;
  }
  const auto records = static_cast<double>(lengths.size());
  return {sum.prompt / records, sum.answer / records};
}

double sequences_at_once(const SchedulerLimits& limits, const std::vector<ReplayRecord>& lengths) {
  double rounds = 0;
  double held = 0;  // KV tokens, each as long as it is held
  for (const ReplayRecord& record : lengths) {
    rounds += record.answer_tokens;
    held += static_cast<double>(record.answer_tokens) *
            (static_cast<double>(record.prompt_tokens) + record.answer_tokens);
  }
  const PipelineRoom room = room_of(limits);
  return std::max(1.0, std::min(static_cast<double>(room.sequences),
                                static_cast<double>(room.kv_tokens) * rounds / held));
}

std::vector<ReplayRecord> draw_records(const std::vector<ReplayRecord>& lengths,
                                       std::uint64_t records) {
  // A stride near the golden section of the number, without a common divisor, comes to each once,
  // and any part of the way is spread evenly.
  const std::uint64_t size = lengths.size();
  auto stride = static_cast<std::uint64_t>(0.6180339887498949 * static_cast<double>(size));
  stride = std::max<std::uint64_t>(stride, 1);
  while (std::gcd(stride, size) != 1) ++stride;
  std::vector<ReplayRecord> drawn;
  drawn.reserve(records);
  std::uint64_t position = 0;
  for (std::uint64_t i = 0; i < records; ++i) {
    drawn.push_back(lengths[position]);
    position = (position + stride) % size;
  }
  return drawn;
}

std::uint64_t window_records(std::uint64_t records) {
  const std::uint64_t windows = (records + kWindowRecords - 1) / kWindowRecords;
  return windows == 0 ? 0 : (records + windows - 1) / windows;
}

std::vector<ReplayRecord> in_run_order(const std::vector<ReplayRecord>& records,
                                       const SchedulerLimits& limits) {
  const std::size_t size = window_records(records.size());
  RecordOrder order;
  order.set_room(room_of(limits));
  std::vector<ReplayRecord> ordered;
  ordered.reserve(records.size());
  for (std::size_t first = 0; first < records.size(); first += size) {
    const std::size_t end = std::min(records.size(), first + size);
    std::vector<RecordFacts> window;
    for (std::size_t i = first; i < end; ++i) {
      const ReplayRecord& record = records[i];
      const bool has_line = record.line_bytes > 0;
      window.push_back({has_line ? record.line_bytes : kBytesPerToken * record.prompt_tokens,
                        record.max_tokens,
                        has_line ? record.prefix_hash : static_cast<std::uint32_t>(i - first)});
    }
    order.begin(window);
    if (first == 0) {
      // What a run learns as it goes is known to be so from the start.
      while (const auto next = order.next()) {
        const ReplayRecord& record = records[next->position];
        order.learn(next->kind, record.max_tokens, record.answer_tokens, true);
      }
      order.begin(window);
    }
    while (const auto next = order.next()) ordered.push_back(records[first + next->position]);
  }
  return ordered;
}

double replay_work(const ReplayRecord& record) {
  return record.answer_tokens + kWorkOfPromptToken * record.prompt_tokens + kWorkOfRecord;
}

std::optional<ReplaySample> sample_of(const std::vector<ReplayRecord>& ordered,
                                      const SchedulerLimits& limits, double most_work) {
  constexpr double kLeast = kBeforeMiddle + kLeastMiddle + kBehindMiddle + kTail;
  double work = 0;
  for (const ReplayRecord& record : ordered) work += replay_work(record);
  const double tokens = std::min(most_work * tokens_of(ordered) / work, kMostTokens);
  const double lifetime =
      std::min(sequences_at_once(limits, ordered) * long_answer(ordered), kMostTokens / kLeast);
  const double wanted_head = std::max(tokens, kLeast * lifetime) - kTail * lifetime;
  std::size_t tail = ordered.size();
  for (double left = kTail * lifetime; tail > 0 && left > 0; --tail) {
    left -= ordered[tail - 1].answer_tokens;
  }
  double before = 0;
  for (std::size_t i = 0; i < tail; ++i) before += ordered[i].answer_tokens;
  const double stride = before / wanted_head;
  if (stride <= 1) return std::nullopt;
  ReplaySample sample;
  for (double at = 0; at < static_cast<double>(tail); at += stride) {
    sample.records.push_back(ordered[static_cast<std::size_t>(at)]);
  }
  sample.records.insert(sample.records.end(), ordered.begin() + static_cast<std::ptrdiff_t>(tail),
                        ordered.end());
  const double begin = std::max(kBeforeMiddle * lifetime, wanted_head / 3);
  sample.middle_begin = static_cast<std::uint64_t>(begin);
  const double lifetimes = std::floor((wanted_head - begin) / lifetime - kBehindMiddle + 1e-6);
  sample.middle_end = static_cast<std::uint64_t>(begin + lifetimes * lifetime);
  return sample;
}

}  // namespace penstock::jobs
