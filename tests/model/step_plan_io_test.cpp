#include "model/step_plan_io.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <random>

#include "model/error.hpp"

namespace penstock::model {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;
using Random = std::mt19937_64;

std::uint32_t below(Random& random, std::uint32_t limit) {
  return static_cast<std::uint32_t>(random() % limit);
}

// A plan without contradictions; every field takes large and small values.
StepPlan random_plan(std::uint64_t seed) {
  Random random(seed);
  StepPlan plan;
  plan.step = random();
  plan.slot = static_cast<std::uint32_t>(random());
  plan.draining = below(random, 2) == 1;
  for (std::uint32_t n = below(random, 6); n > 0; --n) {
    SequenceStep s;
    s.sequence = static_cast<std::uint32_t>(random());
    s.first_row = plan.rows();
    s.rows = 1 + below(random, 70);
    s.position = below(random, 100);
    s.first_block = static_cast<std::uint32_t>(plan.block_table.size());
    s.blocks = (s.position + s.rows + kKvBlockTokens - 1) / kKvBlockTokens;
    s.sample = below(random, 2) == 1;
    for (std::uint32_t i = 0; i < s.rows; ++i) {
      plan.tokens.push_back(static_cast<std::int32_t>(below(random, 128256)));
    }
    for (std::uint32_t i = 0; i < s.blocks; ++i) {
      plan.block_table.push_back(static_cast<std::uint32_t>(random()));
    }
    plan.sequences.push_back(s);
  }
  for (std::uint32_t n = below(random, 4); n > 0; --n) {
    Admission a;
    a.sequence = static_cast<std::uint32_t>(random());
    a.record = random();
    const auto real = [&] { return static_cast<float>(below(random, 1000)) / 64; };
    a.sampling = {real(), static_cast<std::int32_t>(below(random, 100)),
                  real(), real(),
                  real(), -real(),
                  real(), random()};
    a.tokens.resize(below(random, 50));
    for (std::int32_t& token : a.tokens) token = static_cast<std::int32_t>(random());
    a.prompt_tokens = below(random, static_cast<std::uint32_t>(a.tokens.size()) + 1);
    plan.admitted.push_back(a);
  }
  for (std::uint32_t n = below(random, 4); n > 0; --n) {
    plan.retired.push_back(static_cast<std::uint32_t>(random()));
  }
  return plan;
}

void expect_equal(const StepPlan& a, const StepPlan& b) {
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.slot, b.slot);
  EXPECT_EQ(a.draining, b.draining);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.block_table, b.block_table);
  EXPECT_EQ(a.retired, b.retired);
  ASSERT_EQ(a.sequences.size(), b.sequences.size());
  for (std::size_t i = 0; i < a.sequences.size(); ++i) {
    const SequenceStep& s = a.sequences[i];
    const SequenceStep& t = b.sequences[i];
    EXPECT_EQ(s.sequence, t.sequence);
    EXPECT_EQ(s.first_row, t.first_row);
    EXPECT_EQ(s.rows, t.rows);
    EXPECT_EQ(s.position, t.position);
    EXPECT_EQ(s.first_block, t.first_block);
    EXPECT_EQ(s.blocks, t.blocks);
    EXPECT_EQ(s.sample, t.sample);
  }
  ASSERT_EQ(a.admitted.size(), b.admitted.size());
  for (std::size_t i = 0; i < a.admitted.size(); ++i) {
    const Admission& s = a.admitted[i];
    const Admission& t = b.admitted[i];
    EXPECT_EQ(s.sequence, t.sequence);
    EXPECT_EQ(s.record, t.record);
    EXPECT_EQ(s.sampling.temperature, t.sampling.temperature);
    EXPECT_EQ(s.sampling.top_k, t.sampling.top_k);
    EXPECT_EQ(s.sampling.top_p, t.sampling.top_p);
    EXPECT_EQ(s.sampling.min_p, t.sampling.min_p);
    EXPECT_EQ(s.sampling.repetition_penalty, t.sampling.repetition_penalty);
    EXPECT_EQ(s.sampling.presence_penalty, t.sampling.presence_penalty);
    EXPECT_EQ(s.sampling.frequency_penalty, t.sampling.frequency_penalty);
    EXPECT_EQ(s.sampling.seed, t.sampling.seed);
    EXPECT_EQ(s.tokens, t.tokens);
    EXPECT_EQ(s.prompt_tokens, t.prompt_tokens);
  }
}

TEST(StepPlanIo, PlansComeBack) {
  expect_equal(deserialize(serialize({})), {});
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    const StepPlan plan = random_plan(seed);
    expect_equal(deserialize(serialize(plan)), plan);
  }
}

// So that runs can be compared message by message: nothing of the memory around the values travels.
TEST(StepPlanIo, EqualPlansHaveEqualBytes) {
  const StepPlan plan = random_plan(3);
  ASSERT_FALSE(plan.sequences.empty());
  ASSERT_FALSE(plan.admitted.empty());
  StepPlan copy = plan;
  for (SequenceStep& s : copy.sequences) {
    SequenceStep dirty;
    std::memset(static_cast<void*>(&dirty), 0xa5, sizeof dirty);
    dirty.sequence = s.sequence;
    dirty.first_row = s.first_row;
    dirty.rows = s.rows;
    dirty.position = s.position;
    dirty.first_block = s.first_block;
    dirty.blocks = s.blocks;
    dirty.sample = s.sample;
    std::memcpy(static_cast<void*>(&s), &dirty, sizeof dirty);
  }
  for (Admission& a : copy.admitted) {
    SamplingParams dirty;
    std::memset(static_cast<void*>(&dirty), 0xa5, sizeof dirty);
    dirty.temperature = a.sampling.temperature;
    dirty.top_k = a.sampling.top_k;
    dirty.top_p = a.sampling.top_p;
    dirty.min_p = a.sampling.min_p;
    dirty.repetition_penalty = a.sampling.repetition_penalty;
    dirty.presence_penalty = a.sampling.presence_penalty;
    dirty.frequency_penalty = a.sampling.frequency_penalty;
    dirty.seed = a.sampling.seed;
    std::memcpy(static_cast<void*>(&a.sampling), &dirty, sizeof dirty);
  }
  EXPECT_EQ(serialize(copy), serialize(plan));
}

TEST(StepPlanIo, EveryTruncationAndEveryExtraByteIsRefused) {
  const std::vector<std::byte> bytes = serialize(random_plan(3));
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    // A copy of just this size, so that a read behind its end is seen.
    const std::vector<std::byte> cut(bytes.begin(),
                                     bytes.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_THROW(deserialize(cut), ModelError) << size;
  }
  std::vector<std::byte> longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_THAT([&] { deserialize(longer); },
              ThrowsMessage<ModelError>(HasSubstr("bytes behind its end")));
}

TEST(StepPlanIo, DirtyBytesGiveAPlanOrAnError) {
  int refused = 0;
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    std::vector<std::byte> bytes = serialize(random_plan(seed % 50));
    Random random(seed);
    for (std::uint32_t flips = 1 + below(random, 4); flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    }
    try {
      const StepPlan plan = deserialize(bytes);
      EXPECT_EQ(serialize(plan), bytes);
    } catch (const ModelError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
  EXPECT_LT(refused, 2900);
}

TEST(StepPlanIo, HugeCountsAllocateNothing) {
  const StepPlan empty;
  const std::vector<std::byte> bytes = serialize(empty);
  constexpr std::size_t kCounts = 8 + 4 + 1;  // after step, slot and draining come five counts
  ASSERT_EQ(bytes.size(), kCounts + 5 * 8);
  for (const std::uint64_t count :
       {std::uint64_t{1}, std::uint64_t{1} << 32, std::uint64_t{1} << 62, ~std::uint64_t{0}}) {
    for (std::size_t i = 0; i < 5; ++i) {
      std::vector<std::byte> dirty = bytes;
      std::memcpy(&dirty[kCounts + i * 8], &count, sizeof count);
      EXPECT_THAT([&] { deserialize(dirty); }, ThrowsMessage<ModelError>(HasSubstr("cut short")));
    }
  }
}

TEST(StepPlanIo, AFlagIsZeroOrOne) {
  std::vector<std::byte> bytes = serialize({});
  bytes[12] = std::byte{2};
  EXPECT_THROW(deserialize(bytes), ModelError);
  StepPlan plan;
  plan.tokens = {5};
  plan.sequences = {{1, 0, 1, 0, 0, 1, true}};
  plan.block_table = {9};
  const std::vector<std::byte> sampled = serialize(plan);
  plan.sequences[0].sample = false;
  bytes = serialize(plan);
  const auto differ = std::mismatch(bytes.begin(), bytes.end(), sampled.begin());
  ASSERT_NE(differ.first, bytes.end());
  *differ.first = std::byte{0x80};
  EXPECT_THROW(deserialize(bytes), ModelError);
}

// Two sequences: 40 rows from position 0, one row at position 31.
StepPlan good_plan() {
  StepPlan plan;
  plan.tokens.assign(41, 7);
  plan.sequences = {{1, 0, 40, 0, 0, 2, true}, {2, 40, 1, 31, 2, 1, false}};
  plan.block_table = {4, 5, 6};
  plan.admitted = {{1, 100, {}, {7, 8, 9}, 2}};
  return plan;
}

TEST(StepPlanIo, ContradictionsAreRefused) {
  ASSERT_NO_THROW(deserialize(serialize(good_plan())));
  const auto refused = [](const std::function<void(StepPlan&)>& change) {
    StepPlan plan = good_plan();
    change(plan);
    try {
      deserialize(serialize(plan));
    } catch (const ModelError&) {
      return true;
    }
    return false;
  };
  EXPECT_TRUE(refused([](StepPlan& p) { p.tokens.pop_back(); })) << "a token is missing";
  EXPECT_TRUE(refused([](StepPlan& p) { p.tokens.push_back(1); })) << "a token too many";
  EXPECT_TRUE(refused([](StepPlan& p) { p.tokens.clear(); }));
  EXPECT_TRUE(refused([](StepPlan& p) { p.sequences.clear(); }));
  EXPECT_TRUE(refused([](StepPlan& p) { p.sequences[1].first_row = 39; })) << "rows overlap";
  EXPECT_TRUE(refused([](StepPlan& p) { p.sequences[1].first_row = 41; })) << "a gap";
  EXPECT_TRUE(refused([](StepPlan& p) { std::swap(p.sequences[0], p.sequences[1]); }));
  EXPECT_TRUE(refused([](StepPlan& p) {
    p.sequences.push_back({3, 41, 0, 0, 0, 0, false});
  })) << "no rows";
  EXPECT_TRUE(refused([](StepPlan& p) { p.sequences[1].position = 32; })) << "needs two blocks";
  EXPECT_TRUE(refused([](StepPlan& p) { p.sequences[0].blocks = 1; }));
  EXPECT_TRUE(refused([](StepPlan& p) { p.sequences[0].blocks = 3; })) << "one too many";
  EXPECT_TRUE(refused([](StepPlan& p) { p.sequences[1].first_block = 3; })) << "behind the table";
  EXPECT_TRUE(refused(
      [](StepPlan& p) { p.sequences[1].first_block = std::numeric_limits<std::uint32_t>::max(); }));
  EXPECT_TRUE(refused([](StepPlan& p) {
    p.sequences[1].position = std::numeric_limits<std::uint32_t>::max();
    p.sequences[1].blocks = 0;
  })) << "a sum that wraps";
  EXPECT_TRUE(refused([](StepPlan& p) { p.block_table.clear(); }));
  EXPECT_TRUE(refused([](StepPlan& p) { p.admitted[0].prompt_tokens = 4; }));
}

}  // namespace
}  // namespace penstock::model
