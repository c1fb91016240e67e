#include "model/random.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <set>

namespace penstock::model {
namespace {

using Counter = std::array<std::uint32_t, 4>;
using Key = std::array<std::uint32_t, 2>;

// kat_vectors of Random123, the lines "philox4x32 10".
TEST(Philox, KnownAnswersOfRandom123) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

// The 53 upper bits of the known answer to all zeros: 0x6627e8d5e169c58d >> 11.
TEST(Uniform, IsTheUpperBitsOfTheFirstTwoWords) {
  EXPECT_EQ(uniform(0, 0, 0, 0), std::ldexp(static_cast<double>(0x6627e8d5e169c58dull >> 11), -53));
  // Counter and key of the third known answer, as seed, record, sample and position.
  EXPECT_EQ(uniform(0x299f31d0a4093822ull, 0x0370734413198a2eull, 0x85a308d3, 0x243f6a88),
            std::ldexp(static_cast<double>(0xd16cfe0994fdccebull >> 11), -53));
}

TEST(Uniform, EveryBitOfTheKeyCounts) {
  std::set<double> values = {uniform(0, 0, 0, 0)};
  for (int bit = 0; bit < 64; ++bit) {
    const std::uint64_t one = std::uint64_t{1} << bit;
    values.insert(uniform(one, 0, 0, 0));
    values.insert(uniform(0, one, 0, 0));
    if (bit >= 32) continue;
    values.insert(uniform(0, 0, static_cast<std::uint32_t>(one), 0));
    values.insert(uniform(0, 0, 0, static_cast<std::uint32_t>(one)));
  }
  EXPECT_EQ(values.size(), 1u + 64 + 64 + 32 + 32);
}

// Mean 1/2, variance 1/12, and no correlation between neighbours in any coordinate: within four
// standard errors of what independent uniform numbers give.
TEST(Uniform, NeighboursAreIndependent) {
  constexpr int kCount = 20000;
  const auto check = [](const char* along, const auto& at) {
    double sum = 0;
    double squares = 0;
    double products = 0;
    for (std::uint32_t i = 0; i < kCount; ++i) {
      const double value = at(i) - 0.5;
      ASSERT_GE(value, -0.5);
      ASSERT_LT(value, 0.5);
      sum += value;
      squares += value * value;
      products += value * (at(i + 1) - 0.5);
    }
    EXPECT_NEAR(sum / kCount, 0, 4 * std::sqrt(1.0 / 12 / kCount)) << along;
    EXPECT_NEAR(squares / kCount, 1.0 / 12, 4 * std::sqrt(1.0 / 180 / kCount)) << along;
    EXPECT_NEAR(products / kCount, 0, 4 * 1.0 / 12 / std::sqrt(kCount)) << along;
  };
  check("seeds", [](std::uint32_t i) { return uniform(i, 3, 0, 5); });
  check("records", [](std::uint32_t i) { return uniform(1, i, 0, 5); });
  check("samples", [](std::uint32_t i) { return uniform(1, 3, i, 5); });
  check("positions", [](std::uint32_t i) { return uniform(1, 3, 0, i); });
}

}  // namespace
}  // namespace penstock::model
