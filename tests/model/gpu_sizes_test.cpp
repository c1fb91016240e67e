#include "model/gpu_sizes.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "model/decode_graph.hpp"
#include "model/error.hpp"

namespace penstock::model {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

// The shape of Llama-3.1-8B.
ModelConfig llama_8b() {
  ModelConfig config;
  config.hidden_size = 4096;
  config.intermediate_size = 14336;
  config.num_layers = 32;
  config.num_heads = 32;
  config.num_kv_heads = 8;
  config.head_dim = 128;
  config.vocab_size = 128256;
  config.max_position = 131072;
  return config;
}

AttentionShape shape_of(std::uint32_t group, std::size_t partial_floats) {
  AttentionShape shape;
  shape.group = group;
  shape.narrow_queries = std::min(group, 16u);
  shape.partial_floats = partial_floats;
  return shape;
}

TEST(GpuStepLimitsTest, FollowFromOptions) {
  StageOptions options;
  options.max_rows = 2048;
  options.max_samples = 200;
  options.slots = 3;
  options.max_context = 8192;
  const GpuStepLimits limits = gpu_step_limits(llama_8b(), options);
  EXPECT_EQ(limits.rows, 2048u);
  EXPECT_EQ(limits.samples, 200u);
  EXPECT_EQ(limits.context, 8192u);
  EXPECT_EQ(limits.graph_rows, 256u);
  EXPECT_EQ(limits.padded_rows, 2048u);
  EXPECT_EQ(limits.padded_samples, 256u);
  EXPECT_EQ(limits.sequences_alive, 600u);
  EXPECT_EQ(limits.penalty_capacity, 8192u);
}

TEST(GpuStepLimitsTest, AreBoundedByOneAnother) {
  StageOptions options;
  options.max_rows = 3;
  options.max_samples = 256;
  options.max_context = 1u << 30;
  const GpuStepLimits limits = gpu_step_limits(llama_8b(), options);
  EXPECT_EQ(limits.samples, 3u);
  EXPECT_EQ(limits.context, 131072u);
  EXPECT_EQ(limits.graph_rows, 4u);
  EXPECT_EQ(limits.padded_rows, 4u);  // a graph has more rows than the largest step
  EXPECT_EQ(limits.penalty_capacity, 128256u);
}

TEST(GpuStepLimitsTest, OptionsThatMakeNoStageAreRefused) {
  for (auto change :
       {+[](StageOptions& o) { o.threads = 0; }, +[](StageOptions& o) { o.slots = 0; },
        +[](StageOptions& o) { o.max_rows = 0; },
        +[](StageOptions& o) { o.max_rows = kMostRows + 1; },
        +[](StageOptions& o) { o.slots = 1u << 31; }}) {
    StageOptions options;
    change(options);
    EXPECT_THROW(gpu_step_limits(llama_8b(), options), ModelError);
  }
}

// All heads of all rows are queries that 32 bits number.
TEST(GpuStepLimitsTest, ShapesThatKernelsCannotCountAreRefused) {
  ModelConfig config = llama_8b();
  config.num_heads = 4096;
  StageOptions options;
  options.max_rows = kMostRows - 1;
  EXPECT_NO_THROW(gpu_step_limits(config, options));
  options.max_rows = kMostRows;
  EXPECT_THROW(gpu_step_limits(config, options), ModelError);
  config = llama_8b();
  config.vocab_size = 1 << 18;
  EXPECT_NO_THROW(gpu_step_limits(config, options));
  ++config.vocab_size;
  EXPECT_THROW(gpu_step_limits(config, options), ModelError);
}

TEST(GpuAttentionLimits, PartialResultsAreBounded) {
  StageOptions options;
  const GpuStepLimits limits = gpu_step_limits(llama_8b(), options);
  const AttentionShape shape = shape_of(4, 8 * 4 * 132);
  const AttentionLimits attention = gpu_attention_limits(shape, limits);
  EXPECT_LE(attention.partials * shape.partial_floats * sizeof(float), kMostPartialBytes);
  EXPECT_GT((attention.partials + 1) * shape.partial_floats * sizeof(float), kMostPartialBytes);
}

// Whatever steps come, of all kinds and sizes: the lists have room for them.
TEST(LargestStep, HasRoomForEveryStep) {
  std::mt19937 random(5);
  for (const auto& [group, samples, context] :
       {std::tuple(1u, 5u, 700u), {4u, 40u, 3000u}, {40u, 7u, 512u}, {4u, 600u, 600u}}) {
    ModelConfig config = llama_8b();
    StageOptions options;
    options.max_rows = 640;
    options.max_samples = samples;
    options.max_context = context;
    const AttentionShape shape = shape_of(group, 40000);  // few partial results
    const GpuStepLimits limits = gpu_step_limits(config, options);
    const AttentionLimits attention = gpu_attention_limits(shape, limits);
    const StepRoom room = largest_step(limits, shape, attention);
    const std::size_t bytes = StepLayout(room).bytes;
    AttentionPlan plan_of_attention;
    for (int step = 0; step < 300; ++step) {
      StepPlan plan;
      const std::uint32_t most_rows = step % 3 == 0 ? 200 : 1;
      while (plan.sequences.size() < samples && plan.rows() < options.max_rows) {
        SequenceStep sequence;
        sequence.first_row = plan.rows();
        sequence.rows = std::min({1 + static_cast<std::uint32_t>(random() % most_rows),
                                  options.max_rows - plan.rows(), context});
        sequence.position = context - sequence.rows -
                            static_cast<std::uint32_t>(
                                step % 2 == 0 ? 0 : random() % (context - sequence.rows + 1));
        sequence.sample = true;
        plan.sequences.push_back(sequence);
        plan.tokens.resize(plan.tokens.size() + sequence.rows);
        if (random() % samples == 0) break;
      }
      plan_attention(shape, plan.sequences, attention, plan_of_attention);
      const auto key = graph_key(plan, plan_of_attention, shape, limits.graph_rows);
      const AttentionCounts counts = plan_of_attention.counts();
      StepRoom needed{plan.rows(),   static_cast<std::uint32_t>(plan.sequences.size()),
                      counts.wide,   counts.narrow,
                      counts.merges, room.table};
      if (key) needed = {key->rows, key->rows, 0, key->narrow, key->merges, room.table};
      EXPECT_LE(needed.rows, room.rows);
      EXPECT_LE(needed.samples, room.samples);
      EXPECT_LE(needed.wide, room.wide);
      EXPECT_LE(needed.narrow, room.narrow);
      EXPECT_LE(needed.merges, room.merges);
      EXPECT_LE(StepLayout(needed).bytes, bytes);
      EXPECT_LE(plan_of_attention.partials, attention.partials);
    }
  }
}

class GpuBuffersTest : public testing::Test {
 protected:
  GpuBuffers buffers(bool last, std::uint64_t rows = 2048) const {
    const StageRange range{0, last ? 32 : 16, true, last};
    return gpu_buffers(llama_8b(), range, options_, gpu_step_limits(llama_8b(), options_), rows,
                       256, shape_of(4, 4096), {1, 1, 1, 1000}, 5000);
  }
  StageOptions options_;
};

TEST_F(GpuBuffersTest, LieBehindOneAnother) {
  const GpuBuffers b = buffers(true);
  EXPECT_EQ(b.x, 0u);
  EXPECT_EQ(b.normed, 2048u * 4096 * 2);
  EXPECT_EQ(b.qkv - b.normed, 2048u * 4096 * 2);
  EXPECT_EQ(b.attended - b.qkv, 2048u * 6144 * 2);
  EXPECT_EQ(b.delta - b.attended, 2048u * 4096 * 2);
  EXPECT_EQ(b.gate_up - b.delta, 2048u * 4096 * 2);
  EXPECT_EQ(b.activated - b.gate_up, 2048u * 28672 * 2);
  EXPECT_EQ(b.rope_table - b.activated, 2048u * 14336 * 2);
  EXPECT_EQ(b.partials - b.rope_table, 2048u * 128 * 4);
  EXPECT_EQ(b.lists - b.partials, 1000u * 4096 * 4);
  EXPECT_EQ(b.sample_x - b.lists, 5120u);  // 5000, rounded up
  EXPECT_EQ(b.sample_work - b.logits, 256u * 128256 * 4);
  EXPECT_EQ(b.penalty_table_bytes, (8u + 128256 * 8 + 255) / 256 * 256);
  EXPECT_EQ(b.bytes - b.penalties, 256u * b.penalty_table_bytes);
}

TEST_F(GpuBuffersTest, OnlyTheLastStageSamples) {
  EXPECT_EQ(buffers(false).bytes, buffers(true).sample_x);
}

TEST_F(GpuBuffersTest, SizesThatDoNotFitAreRefused) {
  EXPECT_THROW(buffers(true, std::uint64_t{1} << 52), ModelError);
  EXPECT_THROW(buffers(true, std::numeric_limits<std::uint64_t>::max()), ModelError);
}

TEST(GpuProofBytes, AreThoseOfTheLargestProduct) {
  const StageShapes shapes = stage_shapes(llama_8b(), {});
  // The head: weight, rows and f32 results.
  const std::uint64_t head =
      std::uint64_t{128256} * 4096 * 2 + 2048u * 4096 * 2 + std::uint64_t{2048 + 17} * 128256 * 4;
  EXPECT_EQ(gpu_proof_bytes(shapes, true), head);
  EXPECT_LT(gpu_proof_bytes(shapes, false), head / 4);
  EXPECT_GT(gpu_proof_bytes(shapes, false), 28672u * 4096 * 2);
}

TEST(GpuKvBytes, AreWhatIsLeft) {
  const std::uint64_t total = 80 * kGiB;
  const std::uint64_t reserve = gpu_reserve_bytes(total);
  EXPECT_EQ(reserve, kGiB / 2 + 80 * kGiB / 64);
  EXPECT_EQ(gpu_kv_bytes(60 * kGiB, total, kGiB, 4096), 59 * kGiB - reserve - 4096);
  EXPECT_EQ(gpu_kv_bytes(reserve + kGiB + 4096, total, kGiB, 4096), 0u);
  EXPECT_EQ(gpu_kv_bytes(reserve + kGiB + 4097, total, kGiB, 4096), 1u);
  EXPECT_EQ(gpu_kv_bytes(reserve + 5, total, kGiB, 4096), 0u);
  EXPECT_EQ(gpu_kv_bytes(5, total, kGiB, 4096), 0u);
}

TEST(GpuActivationBytes, AreThoseOfEachEdgeAndSlot) {
  StageOptions options;
  options.max_rows = 100;
  options.slots = 3;
  EXPECT_EQ(gpu_activation_bytes({0, 1, true, true}, options, 10), 0u);
  EXPECT_EQ(gpu_activation_bytes({0, 1, true, false}, options, 10), 3u * 1024);
  EXPECT_EQ(gpu_activation_bytes({1, 2, false, false}, options, 10), 6u * 1024);
  EXPECT_THROW(gpu_activation_bytes({1, 2, false, false}, options, std::uint64_t{1} << 60),
               ModelError);
}

TEST(GpuCacheTest, HasAScratchBlockForEachLayer) {
  const GpuCache cache = gpu_cache(1000, 4, 9);
  EXPECT_EQ(cache.layer_bytes, 10240u);
  EXPECT_EQ(cache.bytes, 4u * 10240);
  EXPECT_THROW(gpu_cache(1000, 4, 0), ModelError);
  EXPECT_THROW(gpu_cache(1000, 4, std::numeric_limits<std::uint32_t>::max()), ModelError);
  EXPECT_THROW(gpu_cache(std::uint64_t{1} << 40, 4, 1u << 30), ModelError);
}

}  // namespace
}  // namespace penstock::model
