#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "model/device_model.hpp"
#include "model/error.hpp"
#include "model/stage.hpp"
#include "model/stage_memory.hpp"
#include "model/step_cost.hpp"
#include "tests/support/llama_shapes.hpp"

namespace penstock::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

ModelConfig llama_70b() {
  ModelConfig c = tests::llama_70b();
  c.eos_token_ids = {128001, 128009};
  return c;
}

StageOptions options() {
  StageOptions o;
  o.max_rows = 512;
  o.max_samples = 64;
  o.slots = 3;
  o.max_context = 4096;
  return o;
}

// q and o, k and v, gate, up and down, two norms of f32.
constexpr std::uint64_t kLayerBytes =
    2 * (2 * 8192 * 8192 + 2 * 1024 * 8192 + std::uint64_t{3} * 28672 * 8192) + 2 * 8192 * 4;
constexpr std::uint64_t kTableBytes = std::uint64_t{2} * 128256 * 8192;

TEST(StageMemory, WeightsAndBlocksByHand) {
  const StageMemory first = stage_memory(llama_70b(), {0, 10, true, false}, options());
  EXPECT_EQ(first.weight_bytes, 10 * kLayerBytes + kTableBytes);
  // 32 tokens of 10 layers: keys and values of 8 heads of 128 numbers in two bytes.
  EXPECT_EQ(first.kv_block_bytes, 32u * 10 * 2 * 8 * 128 * 2);
  EXPECT_EQ(first.activation_bytes, 3u * 512 * 8192 * 2);  // one edge
  const StageMemory middle = stage_memory(llama_70b(), {10, 13, false, false}, options());
  EXPECT_EQ(middle.weight_bytes, 3 * kLayerBytes);
  EXPECT_EQ(middle.activation_bytes, 2u * 3 * 512 * 8192 * 2);
  const StageMemory last = stage_memory(llama_70b(), {75, 80, false, true}, options());
  EXPECT_EQ(last.weight_bytes, 5 * kLayerBytes + kTableBytes + 8192 * 4);
  // The logits of 64 rows at least, more than once.
  EXPECT_GT(last.step_bytes, middle.step_bytes + 2 * std::uint64_t{64} * 128256 * 4);
  // What is left: all but half a GiB and a 64th, weights, the step's buffers, activations and one
  // block for scratch.
  const std::uint64_t memory = std::uint64_t{80} << 30;
  EXPECT_EQ(middle.kv_bytes(memory), memory - (std::uint64_t{512} << 20) - memory / 64 -
                                         middle.weight_bytes - middle.step_bytes -
                                         middle.activation_bytes - middle.kv_block_bytes);
  EXPECT_EQ(middle.kv_bytes(middle.weight_bytes), 0u);
}

std::unique_ptr<Stage> stage_of(const StageRange& range, const char* device = "h100-sxm") {
  return make_virtual_stage(llama_70b(), range, options(), device_model(device));
}

TEST(VirtualStage, AccountsForMemoryAsARealOne) {
  const auto stage = stage_of({10, 13, false, false});
  const StageMemory memory = stage_memory(llama_70b(), {10, 13, false, false}, options());
  EXPECT_EQ(stage->weight_bytes(), memory.weight_bytes);
  EXPECT_EQ(stage->kv_block_bytes(), memory.kv_block_bytes);
  EXPECT_EQ(stage->kv_memory_bytes(), memory.kv_bytes(device_model("h100-sxm").memory_bytes));
  EXPECT_EQ(stage->activation_row_bytes(), 2u * 8192);
  EXPECT_EQ(stage->activation_bytes(500), 8u);
  EXPECT_EQ(stage->activation_bytes(0), 0u);
  EXPECT_EQ(stage->numeric_class(), "virtual h100-sxm");
  // 80 layers are 141 GB.
  EXPECT_THAT(
      [] {
        stage_of({0, 80, true, true});
      },
      ThrowsMessage<ModelError>(AllOf(HasSubstr("layers 0 to 79"), HasSubstr("virtual h100-sxm"),
                                      HasSubstr("use more stages"))));
  EXPECT_NO_THROW(stage_of({0, 80, true, true}, "mi300x"));
}

// A step of some sequences, each with a number of rows from a position on.
struct Part {
  std::uint32_t sequence;
  std::uint32_t position;
  std::uint32_t rows;
  bool sample = true;
};
StepPlan plan_of(std::uint64_t step, const std::vector<Part>& parts) {
  StepPlan plan;
  plan.step = step;
  for (const Part& part : parts) {
    SequenceStep s;
    s.sequence = part.sequence;
    s.first_row = plan.rows();
    s.rows = part.rows;
    s.position = part.position;
    s.first_block = static_cast<std::uint32_t>(plan.block_table.size());
    s.blocks = (part.position + part.rows + 31) / 32;
    s.sample = part.sample;
    plan.tokens.resize(plan.rows() + part.rows, 5);
    for (std::uint32_t i = 0; i < s.blocks; ++i) plan.block_table.push_back(i);
    plan.sequences.push_back(s);
  }
  return plan;
}

Admission admission(std::uint32_t sequence, std::uint64_t record) {
  Admission a;
  a.sequence = sequence;
  a.record = record;
  return a;
}

TEST(VirtualStage, TokensDependOnRecordAndPositionOnly) {
  const auto whole = stage_of({0, 80, true, true}, "mi300x");
  const auto last = stage_of({79, 80, false, true});
  whole->allocate_kv(64);
  last->allocate_kv(64);
  // Alone, in one chunk, by handle 1.
  StepPlan alone = plan_of(0, {{1, 0, 40}});
  alone.admitted = {admission(1, 77)};
  whole->forward(alone, {}, {}, [] {});
  const std::vector<std::int32_t> first(whole->sampled().begin(), whole->sampled().end());
  ASSERT_EQ(first.size(), 1u);
  // Among others, in chunks, by handle 9, on another stage.
  std::vector<std::byte> in(8);
  StepPlan chunk = plan_of(0, {{8, 0, 3}, {9, 0, 30, false}});
  chunk.admitted = {admission(8, 3), admission(9, 77)};
  last->forward(chunk, in, {}, [] {});
  ASSERT_EQ(last->sampled().size(), 1u);
  EXPECT_NE(last->sampled()[0], first[0]);
  last->forward(plan_of(1, {{8, 3, 1}, {9, 30, 10}}), in, {}, [] {});
  ASSERT_EQ(last->sampled().size(), 2u);
  EXPECT_EQ(last->sampled()[1], first[0]);
  // Positions and records differ, none ends an answer.
  std::set<std::int32_t> tokens;
  for (std::uint32_t position = 40; position < 140; ++position) {
    whole->forward(plan_of(position, {{1, position, 1}}), {}, {}, [] {});
    const std::int32_t token = whole->sampled()[0];
    EXPECT_GE(token, 0);
    EXPECT_LT(token, 128256);
    tokens.insert(token);
  }
  EXPECT_GT(tokens.size(), 95u);
}

TEST(VirtualStage, TokensThatEndAnswersAreLeftOut) {
  ModelConfig config = llama_70b();
  config.vocab_size = 4;
  config.eos_token_ids = {0, 1, 3};
  const auto stage =
      make_virtual_stage(config, {0, 80, true, true}, options(), device_model("mi300x"));
  stage->allocate_kv(64);
  for (std::uint32_t i = 0; i < 20; ++i) {
    StepPlan plan = plan_of(i, {{i, 0, 1}});
    plan.tokens = {2};
    plan.admitted = {admission(i, i)};
    stage->forward(plan, {}, {}, [] {});
    EXPECT_EQ(stage->sampled()[0], 2);
  }
}

TEST(VirtualStage, TakesTheTimeOfItsParts) {
  const DeviceModel device = device_model("h100-sxm");
  const auto parts = cost_by_device(llama_70b(), io::DType::bf16, io::DType::bf16, device);
  // Rows of 10 from 0 on and 1 from 99 on attend to 55 and 100 positions, of 10 and 100 cached.
  const StepShape shape{11, 1, 155, 110};
  const StepPlan plan = plan_of(0, {{1, 0, 10, false}, {2, 99, 1}});
  EXPECT_EQ(shape_of(plan).rows, shape.rows);
  EXPECT_EQ(shape_of(plan).sampled, shape.sampled);
  EXPECT_EQ(shape_of(plan).attended, shape.attended);
  EXPECT_EQ(shape_of(plan).cached, shape.cached);
  std::vector<std::byte> bytes(8);
  const auto middle = stage_of({10, 13, false, false});
  EXPECT_FALSE(middle->modelled_seconds());
  middle->allocate_kv(64);
  middle->forward(plan, bytes, bytes, [] {});
  EXPECT_DOUBLE_EQ(*middle->modelled_seconds(), parts->step() + 3 * parts->layer(shape));
  const auto first = stage_of({0, 2, true, false});
  first->allocate_kv(64);
  first->forward(plan, {}, bytes, [] {});
  EXPECT_DOUBLE_EQ(*first->modelled_seconds(),
                   parts->step() + 2 * parts->layer(shape) + parts->embedding(shape));
}

TEST(VirtualStage, NoticesWhatARealOneWould) {
  const auto stage = stage_of({79, 80, false, true});
  stage->allocate_kv(2);
  std::vector<std::byte> in(8);
  const auto refused = [&](StepPlan plan, const char* words) {
    EXPECT_THAT([&] { stage->forward(plan, in, {}, [] {}); },
                ThrowsMessage<ModelError>(HasSubstr(words)));
  };
  refused(plan_of(3, {{1, 0, 1}}), "sequence 1 was never admitted");
  refused(plan_of(3, {{1, 0, 65}}), "KV block 2, the cache has 2");
  refused(plan_of(3, {{1, 4096, 1}}), "the context has 4096");
  refused(plan_of(3, {{1, 0, 513}}), "513 rows");
  StepPlan admitted = plan_of(0, {{1, 0, 1}});
  admitted.admitted = {admission(1, 0)};
  EXPECT_NO_THROW(stage->forward(admitted, in, {}, [] {}));
  EXPECT_THROW(stage->forward(plan_of(1, {{1, 1, 1}}), {}, {}, [] {}), ModelError);
  stage->begin_run();
  refused(plan_of(0, {{1, 1, 1}}), "never admitted");
}

}  // namespace
}  // namespace penstock::model
