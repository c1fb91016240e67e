#include "model/stage_plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "model/error.hpp"
#include "model/step_cost.hpp"
#include "tests/support/llama_shapes.hpp"

namespace penstock::model {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

const ModelConfig kSmolLm2 = tests::llama_shape(576, 1536, 30, 9, 3, 49152);
const ModelConfig kLlama8B = tests::llama_8b();
const ModelConfig kLlama70B = tests::llama_70b();
const ModelConfig kLlama405B = tests::llama_405b();

// Elements of SmolLM2's matrices: q and o 576 x 576, k and v 192 x 576, gate, up and down
// 1536 x 576; the head 49152 x 576.
constexpr std::uint64_t kLayerElements = 2 * 331776 + 2 * 110592 + 3 * 884736;
constexpr std::uint64_t kHeadElements = 28311552;
constexpr std::uint64_t kNorm = 576;

TEST(CostOf, ALayerByHand) {
  const StageCost bf16 = cost_of(kSmolLm2, {4, 5, false, false}, io::DType::bf16);
  EXPECT_EQ(bf16.weight_bytes, kLayerElements * 2 + 2 * kNorm * 4);  // norms are f32
  EXPECT_EQ(bf16.flops_per_token, 2.0 * kLayerElements);
  const StageCost f32 = cost_of(kSmolLm2, {0, 1, false, false}, io::DType::f32);
  EXPECT_EQ(f32.weight_bytes, kLayerElements * 4 + 2 * kNorm * 4);
  EXPECT_EQ(f32.flops_per_token, bf16.flops_per_token);
}

TEST(CostOf, HeadCountsAndTheEmbeddingIsALookUp) {
  const StageCost head = cost_of(kSmolLm2, {30, 30, false, true}, io::DType::bf16);
  EXPECT_EQ(head.weight_bytes, kHeadElements * 2 + kNorm * 4);
  EXPECT_EQ(head.flops_per_token, 2.0 * kHeadElements);
  const StageCost embedding = cost_of(kSmolLm2, {0, 0, true, false}, io::DType::bf16);
  EXPECT_EQ(embedding.weight_bytes, 0u);
  EXPECT_EQ(embedding.flops_per_token, 576.0);
  const StageCost all = cost_of(kSmolLm2, {0, 30, true, true}, io::DType::bf16);
  EXPECT_EQ(all.weight_bytes, (30 * kLayerElements + kHeadElements) * 2 + (30 * 2 + 1) * kNorm * 4);
  EXPECT_EQ(all.flops_per_token, 2.0 * (30 * kLayerElements + kHeadElements) + 576);
}

TEST(CostOf, BiasesAreRead) {
  ModelConfig c = kSmolLm2;
  c.attention_bias = true;
  c.mlp_bias = true;
  const StageRange layer{0, 1, false, false};
  // q and o 576, k and v 192, gate and up 1536, down 576.
  EXPECT_EQ(cost_of(c, layer, io::DType::bf16).weight_bytes -
                cost_of(kSmolLm2, layer, io::DType::bf16).weight_bytes,
            4u * (2 * 576 + 2 * 192 + 2 * 1536 + 576));
}

// At one byte and one flop a second: each coefficient by hand.
TEST(StepCost, EachPartByHand) {
  const StageRange last{20, 30, false, true};
  const StepCost cost(cost_by_limits(kSmolLm2, io::DType::bf16, io::DType::bf16, {1, 1}), last);
  const double weights =
      static_cast<double>((10 * kLayerElements + kHeadElements) * 2 + (10 * 2 + 1) * kNorm * 4);
  EXPECT_DOUBLE_EQ(cost.seconds({}), weights);
  EXPECT_DOUBLE_EQ(cost.seconds({1, 0, 0, 0}) - weights, 20.0 * kLayerElements);
  EXPECT_DOUBLE_EQ(cost.seconds({0, 1, 0, 0}) - weights, 2.0 * kHeadElements);
  // Nine heads of 64, ten layers, a multiply-add each for the score and the sum.
  EXPECT_DOUBLE_EQ(cost.seconds({0, 0, 1, 0}) - weights, 9 * 64 * 10 * 2 * 2.0);
  // Keys and values of three heads of 64, ten layers, two bytes each.
  EXPECT_DOUBLE_EQ(cost.seconds({0, 0, 0, 1}) - weights, 2 * 3 * 64 * 10 * 2.0);
  const StepCost f32_cache(cost_by_limits(kSmolLm2, io::DType::bf16, io::DType::f32, {1, 1}), last);
  EXPECT_DOUBLE_EQ(f32_cache.seconds({0, 0, 0, 1}) - weights, 2 * 3 * 64 * 10 * 4.0);
}

TEST(StepCost, PartsAddUpAndScaleWithTheMachine) {
  const StageRange first{0, 3, true, false};
  const StepCost slow(cost_by_limits(kSmolLm2, io::DType::bf16, io::DType::bf16, {1, 1}), first);
  const StepCost fast(cost_by_limits(kSmolLm2, io::DType::bf16, io::DType::bf16, {8, 2}), first);
  const double weights = slow.seconds({});
  EXPECT_DOUBLE_EQ(fast.seconds({}), weights / 2);
  const double row = slow.seconds({1, 0, 0, 0}) - weights;
  EXPECT_DOUBLE_EQ(row, 6.0 * kLayerElements + 576);
  EXPECT_DOUBLE_EQ(slow.seconds({5, 3, 0, 0}) - weights, 5 * row);  // no head here
  EXPECT_DOUBLE_EQ(fast.seconds({8, 0, 0, 0}) - weights / 2, row);
  EXPECT_DOUBLE_EQ(fast.seconds({0, 0, 8, 0}) - weights / 2, slow.seconds({0, 0, 1, 0}) - weights);
  EXPECT_DOUBLE_EQ(fast.seconds({0, 0, 0, 2}) - weights / 2, slow.seconds({0, 0, 0, 1}) - weights);
}

// ---- cuts

// What a cut is judged by: the bytes of the weights, and the flops of a step of 64 rows on a device
// that does 32 in the time of a byte.
double seconds(const ModelConfig& config, const StageRange& range, io::DType dtype) {
  const StageCost cost = cost_of(config, range, dtype);
  return static_cast<double>(cost.weight_bytes) + cost.flops_per_token * 64 / 32;
}

double slowest(const ModelConfig& config, const std::vector<StageRange>& cut, io::DType dtype) {
  double most = 0;
  for (const StageRange& range : cut) most = std::max(most, seconds(config, range, dtype));
  return most;
}

void expect_whole(const std::vector<StageRange>& cut, int stages, std::int64_t layers) {
  ASSERT_EQ(cut.size(), static_cast<std::size_t>(stages));
  std::int64_t at = 0;
  for (std::size_t i = 0; i < cut.size(); ++i) {
    EXPECT_EQ(cut[i].begin, at);
    EXPECT_GT(cut[i].end, cut[i].begin) << "stage " << i << " is empty";
    EXPECT_EQ(cut[i].layers(), cut[i].end - cut[i].begin);
    EXPECT_EQ(cut[i].first, i == 0);
    EXPECT_EQ(cut[i].last, i + 1 == cut.size());
    at = cut[i].end;
  }
  EXPECT_EQ(at, layers);
}

// Tries all ways to cut layers [begin, num_layers) into stages [stage, stages).
double least_slowest(const ModelConfig& config, int stage, int stages, std::int64_t begin,
                     io::DType dtype) {
  const bool last = stage == stages - 1;
  double best = std::numeric_limits<double>::infinity();
  for (std::int64_t end = last ? config.num_layers : begin + 1; end <= config.num_layers; ++end) {
    if (end <= begin) continue;
    const double here = seconds(config, {begin, end, stage == 0, last}, dtype);
    const double rest = last ? 0.0 : least_slowest(config, stage + 1, stages, end, dtype);
    best = std::min(best, std::max(here, rest));
  }
  return best;
}

TEST(CutStages, NoCutHasAFasterSlowestStage) {
  // The head is worth 0.04, 1.3, 2.7, 13 and 133 layers.
  for (const std::int64_t vocab : {16, 480, 1000, 5000, 49152}) {
    for (std::int64_t layers = 1; layers <= 8; ++layers) {
      const ModelConfig config = tests::llama_shape(64, 64 * 3 / 2, layers, 4, 2, vocab);
      for (int stages = 1; stages <= layers; ++stages) {
        for (const io::DType dtype : {io::DType::f32, io::DType::bf16}) {
          SCOPED_TRACE(testing::Message()
                       << layers << " layers, " << stages << " stages, vocabulary " << vocab);
          const auto cut = cut_stages(config, stages, dtype);
          expect_whole(cut, stages, layers);
          EXPECT_DOUBLE_EQ(slowest(config, cut, dtype), least_slowest(config, 0, stages, 0, dtype));
        }
      }
    }
  }
}

// With the head counted in layers, no cut is better than the mean, rounded up to what stages of
// whole layers can have; and the best cut is never worse than the one layer more.
TEST(CutStages, RealModelsOnUpToSixteenStages) {
  for (const ModelConfig& config : {kSmolLm2, kLlama8B, kLlama70B, kLlama405B}) {
    const double layer = seconds(config, {0, 1, false, false}, io::DType::bf16);
    const double head = seconds(config, {0, 0, false, true}, io::DType::bf16) / layer;
    for (int stages = 1; stages <= 16; ++stages) {
      SCOPED_TRACE(testing::Message() << config.num_layers << " layers, " << stages << " stages");
      const auto cut = cut_stages(config, stages, io::DType::bf16);
      expect_whole(cut, stages, config.num_layers);
      const double most = slowest(config, cut, io::DType::bf16) / layer;
      const double mean = (static_cast<double>(config.num_layers) + head) / stages;
      EXPECT_GE(most, mean);
      EXPECT_LT(most, std::max(mean + 1, head + 1 + 1e-3) + 1e-3);
    }
  }
}

std::vector<std::int64_t> layers_of(const std::vector<StageRange>& cut) {
  std::vector<std::int64_t> layers;
  for (const StageRange& range : cut) layers.push_back(range.layers());
  return layers;
}

// SmolLM2's head is as large as eight layers exactly, so 38 are to share.
TEST(CutStages, HeadOfSmolLm2IsWorthEightLayers) {
  static_assert(kHeadElements == 8 * kLayerElements);
  using testing::ElementsAre;
  EXPECT_THAT(layers_of(cut_stages(kSmolLm2, 1, io::DType::bf16)), ElementsAre(30));
  EXPECT_THAT(layers_of(cut_stages(kSmolLm2, 2, io::DType::bf16)), ElementsAre(19, 11));
  // Sixteen stages: the last has one layer and the head, nine; no other needs more than two.
  const auto sixteen = layers_of(cut_stages(kSmolLm2, 16, io::DType::bf16));
  EXPECT_EQ(sixteen.back(), 1);
  EXPECT_EQ(*std::max_element(sixteen.begin(), sixteen.end()), 2);
}

// 128256 x 4096 elements of head to 218103808 of a layer: 2.41 layers. 405B's head: 0.66.
TEST(CutStages, HeadsOfLlama) {
  using testing::ElementsAre;
  EXPECT_THAT(layers_of(cut_stages(kLlama8B, 2, io::DType::bf16)), ElementsAre(17, 15));
  const auto four = layers_of(cut_stages(kLlama8B, 4, io::DType::bf16));
  EXPECT_EQ(*std::max_element(four.begin(), four.end()), 9);
  EXPECT_EQ(four.back(), 6);
  const auto sixteen = layers_of(cut_stages(kLlama405B, 16, io::DType::bf16));
  EXPECT_EQ(*std::max_element(sixteen.begin(), sixteen.end()), 8);
  EXPECT_EQ(sixteen.back(), 7);
}

TEST(CutStages, ManyLayersAndStages) {
  const ModelConfig config = tests::llama_shape(64, 96, 300, 4, 2, 1000);
  for (const int stages : {64, 299, 300}) {
    expect_whole(cut_stages(config, stages, io::DType::bf16), stages, 300);
  }
}

TEST(CutStages, FewerLayersThanStages) {
  EXPECT_THAT([] { cut_stages(kSmolLm2, 31, io::DType::bf16); },
              ThrowsMessage<ModelError>(AllOf(HasSubstr("30 layers"), HasSubstr("31 stages"))));
  EXPECT_THAT([] { cut_stages(kSmolLm2, std::numeric_limits<int>::max(), io::DType::bf16); },
              ThrowsMessage<ModelError>(HasSubstr("2147483647 stages")));
  EXPECT_THROW(cut_stages(kSmolLm2, 0, io::DType::bf16), ModelError);
  EXPECT_THROW(cut_stages(kSmolLm2, -1, io::DType::bf16), ModelError);
}

// ---- ranks that differ

double time_of(const StageRank& rank, std::int64_t layers, bool first, bool last) {
  const PartSeconds& s = rank.seconds;
  return s.step + static_cast<double>(layers) * s.layer + (first ? s.embedding : 0) +
         (last ? s.head : 0);
}

bool fits(const StageRank& rank, const PartBytes& bytes, std::int64_t layers, bool first,
          bool last) {
  return static_cast<std::uint64_t>(layers) * bytes.layer + (first ? bytes.embedding : 0) +
             (last ? bytes.head : 0) <=
         rank.memory_bytes;
}

// The best of all ways, one by one: first by the slowest stage, then by the sum of squares.
struct Tried {
  double slowest = std::numeric_limits<double>::infinity();
  double squares = std::numeric_limits<double>::infinity();
};
void try_all(std::span<const StageRank> ranks, const PartBytes& bytes, std::size_t stage,
             std::int64_t left, double slowest, double squares, Tried& best) {
  const bool last = stage + 1 == ranks.size();
  for (std::int64_t count = last ? left : 1; count <= left; ++count) {
    if (count < 1 || !fits(ranks[stage], bytes, count, stage == 0, last)) continue;
    const double here = time_of(ranks[stage], count, stage == 0, last);
    const double most = std::max(slowest, here);
    const double sum = squares + here * here;
    if (!last) {
      try_all(ranks, bytes, stage + 1, left - count, most, sum, best);
    } else if (most < best.slowest || (most == best.slowest && sum < best.squares)) {
      best = {most, sum};
    }
  }
}

TEST(CutStages, RanksThatDifferByBruteForce) {
  std::mt19937 random(7);
  const auto pick = [&](int least, int most) {
    return std::uniform_int_distribution<int>(least, most)(random);
  };
  int impossible = 0;
  for (int round = 0; round < 2000; ++round) {
    const int layers = pick(1, 10);
    std::vector<StageRank> ranks(static_cast<std::size_t>(pick(1, std::min(layers, 5))));
    // Whole numbers, so that sums are exact.
    for (StageRank& rank : ranks) {
      rank.seconds = {1.0 * pick(0, 3), 1.0 * pick(0, 5), 1.0 * pick(1, 9), 1.0 * pick(0, 40)};
      if (pick(0, 3) > 0) rank.memory_bytes = static_cast<std::uint64_t>(pick(10, 80));
    }
    const PartBytes bytes{static_cast<std::uint64_t>(pick(0, 15)),
                          static_cast<std::uint64_t>(pick(1, 12)),
                          static_cast<std::uint64_t>(pick(0, 15))};
    SCOPED_TRACE(round);
    Tried best;
    try_all(ranks, bytes, 0, layers, 0, 0, best);
    if (best.slowest == std::numeric_limits<double>::infinity()) {
      ++impossible;
      EXPECT_THROW(cut_stages(layers, ranks, bytes), ModelError);
      continue;
    }
    const auto cut = cut_stages(layers, ranks, bytes);
    expect_whole(cut, static_cast<int>(ranks.size()), layers);
    Tried ours{0, 0};
    for (std::size_t i = 0; i < cut.size(); ++i) {
      const bool last = i + 1 == cut.size();
      EXPECT_TRUE(fits(ranks[i], bytes, cut[i].layers(), i == 0, last)) << "stage " << i;
      const double time = time_of(ranks[i], cut[i].layers(), i == 0, last);
      ours = {std::max(ours.slowest, time), ours.squares + time * time};
    }
    EXPECT_EQ(ours.slowest, best.slowest);
    EXPECT_EQ(ours.squares, best.squares);
  }
  EXPECT_GT(impossible, 100);
  EXPECT_LT(impossible, 1500);
}

// A device of twice the speed takes two layers of three; a small one no more than it holds.
TEST(CutStages, SpeedAndMemoryByHand) {
  using testing::ElementsAre;
  StageRank slow;
  slow.seconds.layer = 2;
  StageRank fast;
  fast.seconds.layer = 1;
  const PartBytes bytes{0, 10, 0};
  EXPECT_THAT(layers_of(cut_stages(12, std::vector{slow, fast}, bytes)), ElementsAre(4, 8));
  EXPECT_THAT(layers_of(cut_stages(12, std::vector{fast, slow}, bytes)), ElementsAre(8, 4));
  fast.memory_bytes = 69;
  EXPECT_THAT(layers_of(cut_stages(12, std::vector{slow, fast}, bytes)), ElementsAre(6, 6));
  // The slowest is the first one, however the others are cut: they are evened out even so.
  slow.seconds.layer = 100;
  slow.memory_bytes = 10;
  fast.memory_bytes = 1000;
  EXPECT_THAT(layers_of(cut_stages(10, std::vector{slow, fast, fast, fast}, bytes)),
              ElementsAre(1, 3, 3, 3));
}

TEST(CutStages, SaysWhichMemoryIsMissing) {
  StageRank rank;
  rank.seconds.layer = 1;
  rank.memory_bytes = 7'000'000'000;
  const PartBytes bytes{1'000'000'000, 2'000'000'000, 4'000'000'000};
  const auto cut = [&](std::int64_t layers, std::vector<StageRank> ranks) {
    return [=] { cut_stages(layers, ranks, bytes); };
  };
  // 1 + 3 * 2 and 4 + 1 * 2.
  EXPECT_EQ(cut_stages(4, std::vector{rank, rank}, bytes)[0].layers(), 3);
  EXPECT_THAT(cut(6, {rank, rank}),
              ThrowsMessage<ModelError>(
                  AllOf(HasSubstr("for 4 of the 6 layers"), HasSubstr("stage 0 holds 3 in 7.00 GB"),
                        HasSubstr("stage 1 holds 1 in 7.00 GB"),
                        HasSubstr("2 layers of 2.00 GB, 4.00 GB, are missing"))));
  StageRank small = rank;
  small.memory_bytes = 5'500'000'000;
  EXPECT_THAT(cut(4, {rank, small}),
              ThrowsMessage<ModelError>(AllOf(HasSubstr("stage 1 has 5.50 GB"),
                                              HasSubstr("the head takes 6.00 GB"),
                                              HasSubstr("0.50 GB are missing"))));
}

// 2 * 3 heads of 64 in bf16: 768 bytes of cache a token and layer.
TEST(CutStages, BytesOfSmolLm2) {
  const PartBytes bytes = part_bytes(kSmolLm2, io::DType::bf16, io::DType::bf16, 1000);
  EXPECT_EQ(bytes.layer, kLayerElements * 2 + 2 * kNorm * 4 + 768 * 1000);
  EXPECT_EQ(bytes.embedding, kHeadElements * 2);
  EXPECT_EQ(bytes.head, kHeadElements * 2 + kNorm * 4);
  EXPECT_EQ(part_bytes(kSmolLm2, io::DType::bf16, io::DType::f32, 1000).layer - bytes.layer,
            768u * 1000);
}

TEST(StagesOf, TakesWhatTheUserSaysAndChecksIt) {
  const auto of = [](int stages, std::vector<std::int64_t> layers) {
    return [=] { stages_of(kSmolLm2, stages, layers); };
  };
  const auto cut = stages_of(kSmolLm2, 3, std::vector<std::int64_t>{10, 19, 1});
  expect_whole(cut, 3, 30);
  EXPECT_THAT(layers_of(cut), testing::ElementsAre(10, 19, 1));
  EXPECT_THAT(of(2, {10, 19, 1}), ThrowsMessage<ModelError>(HasSubstr("3 numbers, but")));
  EXPECT_THAT(of(2, {10, 19}), ThrowsMessage<ModelError>(AllOf(HasSubstr("10,19 are 29"),
                                                               HasSubstr("the model has 30"))));
  EXPECT_THAT(of(2, {30, 0}), ThrowsMessage<ModelError>(HasSubstr("not 0")));
  EXPECT_THAT(of(2, {31, -1}), ThrowsMessage<ModelError>(HasSubstr("1 to 30 layers, not 31")));
}

// ---- steps

// 64 answers of 100 tokens end every 100 steps, so 0.64 prompts of 200 begin in each: 128 rows,
// each behind 99.5 others and itself on average.
TEST(StepShape, SteadyStepByHand) {
  const StepShape step = steady_step(64, 200, 100);
  EXPECT_EQ(step.rows, 64u + 128);
  EXPECT_EQ(step.sampled, 64u);
  EXPECT_EQ(step.attended, 64u * 251 + 12864);  // 0.64 * 200 * 201 / 2
  EXPECT_EQ(step.cached, 64u * 251 + 128);
  const StepShape decode = decode_step(8, 99);
  EXPECT_EQ(decode.rows, 8u);
  EXPECT_EQ(decode.sampled, 8u);
  EXPECT_EQ(decode.attended, 800u);
  EXPECT_EQ(decode.cached, 800u);
}

// A prompt's four tokens behind two others attend to 3 + 4 + 5 + 6; one that decodes to ten.
TEST(StepShape, OfAPlanByHand) {
  StepPlan plan;
  plan.tokens.resize(5);
  plan.sequences.push_back({0, 0, 4, 2, 0, 1, false});
  plan.sequences.push_back({1, 4, 1, 9, 1, 1, true});
  const StepShape shape = shape_of(plan);
  EXPECT_EQ(shape.rows, 5u);
  EXPECT_EQ(shape.sampled, 1u);
  EXPECT_EQ(shape.attended, 18u + 10);
  EXPECT_EQ(shape.cached, 6u + 10);
  const StepShape mean = mean_of(shape + shape + shape, 3);
  EXPECT_EQ(mean.attended, 28u);
  EXPECT_EQ(mean.cached, 16u);
  EXPECT_EQ(mean_of(shape, 0).rows, 0u);
}

}  // namespace
}  // namespace penstock::model
