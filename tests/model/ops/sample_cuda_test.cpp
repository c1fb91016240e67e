#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "model/ops/sample.hpp"
#include "model/random.hpp"
#include "tests/model/ops/devices.hpp"

namespace penstock::model {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// The parts that run on CPU and GPU alike.
TEST(SampleArithmeticTest, RandomBitsAreThoseOfTheCpu) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t seed = random(), record = random();
    const auto sample = static_cast<std::uint32_t>(random());
    const auto position = static_cast<std::uint32_t>(random());
    EXPECT_EQ(static_cast<double>(random_bits(seed, record, sample, position)) * 0x1p-53,
              uniform(seed, record, sample, position));
  }
}

TEST(SampleArithmeticTest, ScalingIsExact) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t bits = random() >> 11;
    const Mass total = random() >> (1 + i % 60);
    const auto exact = static_cast<unsigned __int128>(bits) * total >> 53;
    EXPECT_EQ(scaled(bits, total), static_cast<Mass>(exact));
  }
  EXPECT_EQ(scaled((1ull << 53) - 1, 1), 0u);
}

struct Case {
  SamplingParams params;
  std::vector<float> logits;
  std::uint64_t record = 0;
  std::vector<std::int32_t> tokens;  // prompt and answer
  std::size_t prompt_tokens = 0;
};

std::vector<std::byte> penalty_table(const Case& c, std::uint32_t capacity) {
  std::vector<PenaltyEntry> entries;
  for (std::size_t i = 0; i < c.tokens.size(); ++i) {
    auto entry = std::find_if(entries.begin(), entries.end(),
                              [&](const PenaltyEntry& e) { return e.id == c.tokens[i]; });
    if (entry == entries.end()) entry = entries.insert(entry, {c.tokens[i], 0});
    if (i >= c.prompt_tokens) ++entry->generated;
  }
  std::vector<std::byte> bytes(penalty_table_bytes(capacity));
  const PenaltyTable header{static_cast<std::uint32_t>(entries.size()), capacity};
  std::memcpy(bytes.data(), &header, sizeof(header));
  if (!entries.empty()) {
    std::memcpy(bytes.data() + sizeof(header), entries.data(),
                entries.size() * sizeof(PenaltyEntry));
  }
  return bytes;
}

// `steps` ids of each case, all from the same logits.
template <class Device>
std::vector<std::vector<std::int32_t>> sampled(const std::vector<Case>& cases, int steps) {
  using Bytes = typename Device::template Array<std::byte>;
  const std::size_t vocab = cases.front().logits.size();
  std::vector<SampleRow> rows;
  std::vector<std::unique_ptr<Bytes>> tables;
  std::vector<float> logits;
  for (const Case& c : cases) {
    SampleRow row;
    row.params = c.params;
    row.record = c.record;
    row.position = static_cast<std::uint32_t>(c.tokens.size() - c.prompt_tokens);
    if (c.params.has_penalty()) {
      tables.push_back(std::make_unique<Bytes>(penalty_table(c, 64)));
      row.penalties = reinterpret_cast<PenaltyTable*>(tables.back()->data());
    }
    rows.push_back(row);
    logits.insert(logits.end(), c.logits.begin(), c.logits.end());
  }
  const std::size_t most = rows.size() + 2;  // as if the launch were made for more
  logits.resize(most * vocab);
  typename Device::template Array<float> logits_there(logits);
  typename Device::template Array<float> work(std::vector<float>(most * vocab, kNaN));
  typename Device::template Array<std::int32_t> ids(std::vector<std::int32_t>(most, -1));
  typename Device::template Array<std::uint32_t> count({static_cast<std::uint32_t>(rows.size())});
  std::vector<std::vector<std::int32_t>> all(rows.size());
  for (int step = 0; step < steps; ++step) {
    typename Device::template Array<SampleRow> rows_there(rows);
    Sample args;
    args.rows = rows_there.data();
    args.count = count.data();
    args.most = most;
    args.vocab = vocab;
    args.logits = logits_there.data();
    args.work = work.data();
    args.ids = ids.data();
    sample(Device::device(), args);
    const std::vector<std::int32_t> got = ids.values();
    for (std::size_t i = 0; i < rows.size(); ++i) {
      all[i].push_back(got[i]);
      ++rows[i].position;
    }
    EXPECT_EQ(got[rows.size()], -1);
  }
  const std::vector<float> after = logits_there.values();
  EXPECT_EQ(std::memcmp(after.data(), logits.data(), logits.size() * sizeof(float)), 0);
  return all;
}

std::vector<std::vector<std::int32_t>> want(const std::vector<Case>& cases, int steps) {
  std::vector<std::vector<std::int32_t>> all;
  for (const Case& c : cases) {
    Sampler sampler(c.params, c.record, c.tokens, c.prompt_tokens);
    std::vector<std::int32_t> ids;
    SamplerScratch scratch(c.logits.size());
    for (int step = 0; step < steps; ++step) {
      ids.push_back(sampler.sample(c.logits, scratch));
    }
    all.push_back(ids);
  }
  return all;
}

template <class Device>
class SampleTest : public DeviceTest<Device> {};
using SamplingDevices = testing::Types<OnEmulator, OnGpu>;
TYPED_TEST_SUITE(SampleTest, SamplingDevices);

std::vector<Case> random_cases(std::size_t count, std::size_t vocab, std::uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t most) { return random() % most; };
  std::vector<Case> cases(count);
  for (Case& c : cases) {
    const float range = below(2) == 0 ? 2.0f : 12.0f;
    std::uniform_real_distribution<float> logit(-range, range);
    for (std::size_t i = 0; i < vocab; ++i) {
      // Every other case has few values: ties everywhere.
      const float value = logit(random);
      c.logits.push_back(below(2) == 0 ? value : std::round(value));
    }
    if (below(4) == 0) {
      for (float& value : c.logits) value = std::round(value);
    }
    c.logits[below(static_cast<std::uint32_t>(vocab))] = below(2) == 0 ? kNaN : -kInfinity;
    c.record = random();
    c.params.seed = random();
    c.params.temperature = below(8) == 0 ? 0.0f : 0.25f + static_cast<float>(below(8)) / 4;
    if (below(2) == 0)
      c.params.top_k = static_cast<std::int32_t>(1 + below(below(2) == 0 ? 10 : 2000));
    if (below(2) == 0) c.params.top_p = static_cast<float>(1 + below(100)) / 101;
    if (below(3) == 0) c.params.min_p = static_cast<float>(1 + below(100)) / 100;
    if (below(3) == 0) {
      c.params.repetition_penalty = 1.0f + static_cast<float>(below(5)) / 4;
      c.params.presence_penalty = static_cast<float>(below(5)) / 4 - 0.5f;
      c.params.frequency_penalty = static_cast<float>(below(5)) / 4;
      for (std::uint32_t i = below(30); i > 0; --i) {
        c.tokens.push_back(static_cast<std::int32_t>(below(static_cast<std::uint32_t>(vocab))));
      }
      c.prompt_tokens = c.tokens.empty() ? 0 : below(static_cast<std::uint32_t>(c.tokens.size()));
    }
  }
  return cases;
}

// The CPU's ids. A GPU's exp differs in the last bit, which moves borders between tokens by some
// 1e-7 of the whole: hardly one draw in a million, and ties may fall apart.
TYPED_TEST(SampleTest, IdsAreThoseOfTheCpu) {
  constexpr int kSteps = 4;
  std::size_t different = 0, all = 0;
  for (const std::size_t vocab : {5u, 97u, 1000u}) {
    const auto cases = random_cases(60, vocab, static_cast<std::uint32_t>(vocab));
    const auto got = sampled<TypeParam>(cases, kSteps);
    const auto expected = want(cases, kSteps);
    for (std::size_t i = 0; i < cases.size(); ++i, ++all) {
      if (got[i] == expected[i]) continue;
      ++different;
      if (std::is_same_v<TypeParam, OnGpu>) continue;
      const SamplingParams& p = cases[i].params;
      ADD_FAILURE() << "vocab " << vocab << " case " << i << ": " << testing::PrintToString(got[i])
                    << ", not " << testing::PrintToString(expected[i]) << " at temperature "
                    << p.temperature << " top_k " << p.top_k << " top_p " << p.top_p << " min_p "
                    << p.min_p << " penalties " << p.has_penalty();
    }
  }
  EXPECT_LE(different * 100, all) << different << " of " << all << " cases";
}

TYPED_TEST(SampleTest, HopelessLogits) {
  std::vector<Case> cases;
  for (const std::vector<float>& logits : {std::vector<float>{kNaN, kNaN, kNaN},
                                           {-kInfinity, -kInfinity, -kInfinity},
                                           {1, kInfinity, kInfinity},
                                           {kNaN, -3, -3},
                                           {0, 2, 2}}) {
    for (const float temperature : {0.0f, 0.01f}) {
      Case c;
      c.logits = logits;
      c.params.temperature = temperature;
      c.params.top_k = 1;
      cases.push_back(c);
    }
  }
  const auto got = sampled<TypeParam>(cases, 1);
  const std::vector<std::int32_t> expected = {0, 0, 0, 0, 1, 1, 1, 1, 1, 1};
  for (std::size_t i = 0; i < cases.size(); ++i) EXPECT_EQ(got[i].front(), expected[i]) << i;
}

// Logits of a real vocabulary's size; on the GPU, since playing it takes long.
TEST(SampleOnGpuTest, LargeVocabulary) {
  if (!OnGpu::missing().empty()) GTEST_SKIP() << OnGpu::missing();
  const auto cases = random_cases(40, 128256, 9);
  const auto got = sampled<OnGpu>(cases, 2);
  const auto expected = want(cases, 2);
  std::size_t different = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) different += got[i] != expected[i] ? 1 : 0;
  EXPECT_LE(different, 2u);
}

}  // namespace
}  // namespace penstock::model
