// What the order of records is worth: seconds of a replay, of which only the order is asserted.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "jobs/record_order.hpp"
#include "jobs/replay.hpp"
#include "model/device_model.hpp"
#include "tests/support/uniform.hpp"

namespace penstock::jobs {
namespace {

using tests::Uniform;

constexpr std::uint32_t kRecords = 2000;
constexpr std::uint32_t kSlots = 3;
constexpr std::uint32_t kSequences = 32;  // of a slot

// Answers by Zipf's law from 1 to 4096 tokens: a length is as likely as it is short. Each has the
// length that it may have.
std::vector<ReplayRecord> skewed_records() {
  Uniform uniform;
  std::vector<ReplayRecord> records(kRecords);
  for (ReplayRecord& record : records) {
    record.prompt_tokens = 20 + static_cast<std::uint32_t>(500 * uniform());
    record.answer_tokens = std::min(4096U, static_cast<std::uint32_t>(std::pow(4097.0, uniform())));
    record.max_tokens = record.answer_tokens;
  }
  return records;
}

// A model of the size of Llama 3.1 8B on two H100.
ReplayPipeline two_stages(std::uint32_t kv_blocks) {
  model::ModelConfig config;
  config.num_layers = 32;
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.num_heads = 32;
  config.num_kv_heads = 8;
  config.head_dim = 128;
  config.vocab_size = 128256;
  const auto parts = model::cost_by_device(config, io::DType::bf16, io::DType::bf16,
                                           model::device_model("h100-sxm"));
  const LinkModel link{2e-6, 5e10};
  const model::StepCost first(parts, {0, 16, true, false});
  const model::StepCost last(parts, {16, 32, false, true});
  return {
      {{first, link}, {last, link}}, link, 2.0 * 4096, {kSlots, 2048, kSequences, kv_blocks}, last};
}

double seconds(const std::vector<ReplayRecord>& records, std::uint32_t kv_blocks,
               const std::function<std::optional<std::uint32_t>()>& next) {
  ReplayWorkload workload([&]() -> std::optional<ReplayRecord> {
    const auto position = next();
    return position ? std::optional(records[*position]) : std::nullopt;
  });
  return replay(two_stages(kv_blocks), workload).seconds;
}

double seconds_first_come(const std::vector<ReplayRecord>& records, std::uint32_t kv_blocks) {
  std::uint32_t next = 0;
  return seconds(records, kv_blocks, [&]() -> std::optional<std::uint32_t> {
    return next < records.size() ? std::optional(next++) : std::nullopt;
  });
}

double seconds_ordered(const std::vector<ReplayRecord>& records, std::uint32_t kv_blocks,
                       const PipelineRoom& room) {
  std::vector<RecordFacts> window;
  for (const ReplayRecord& record : records) {
    window.push_back(
        {4 * record.prompt_tokens, record.max_tokens, static_cast<std::uint32_t>(window.size())});
  }
  RecordOrder order;
  order.set_room(room);
  order.begin(window);
  return seconds(records, kv_blocks, [&]() -> std::optional<std::uint32_t> {
    const auto next = order.next();
    return next ? std::optional(next->position) : std::nullopt;
  });
}

PipelineRoom room(std::uint32_t kv_blocks) {
  return {kSlots * kSequences, (kSlots + 1) * kSequences,
          std::uint64_t{kv_blocks} * model::kKvBlockTokens};
}

TEST(RecordOrderInReplay, BeatsFirstComeWithPlentyOfKvMemory) {
  const std::vector<ReplayRecord> records = skewed_records();
  constexpr std::uint32_t kBlocks = 40000;
  const double first_come = seconds_first_come(records, kBlocks);
  const double ordered = seconds_ordered(records, kBlocks, room(kBlocks));
  RecordProperty("first_come_seconds", std::to_string(first_come));
  RecordProperty("ordered_seconds", std::to_string(ordered));
  EXPECT_LT(ordered, first_come);
}

// The KV memory holds some 40 average records here. Longest first is slower than first come then.
TEST(RecordOrderInReplay, BeatsFirstComeWithLittleKvMemory) {
  const std::vector<ReplayRecord> records = skewed_records();
  constexpr std::uint32_t kBlocks = 2000;
  const double first_come = seconds_first_come(records, kBlocks);
  const double ordered = seconds_ordered(records, kBlocks, room(kBlocks));
  RecordProperty("first_come_seconds", std::to_string(first_come));
  RecordProperty("ordered_seconds", std::to_string(ordered));
  EXPECT_LT(ordered, first_come);
  EXPECT_LT(ordered, seconds_ordered(records, kBlocks, PipelineRoom{}));
}

}  // namespace
}  // namespace penstock::jobs
