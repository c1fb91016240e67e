#include "model/ops/convert.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "tests/model/ops/ops_support.hpp"

namespace penstock::model {
namespace {

// The kernels round as io's scalar conversion does, whose reference is elsewhere; here a few values
// are written out: 1 + 2^-8 is half way to the next bf16 and goes to the even one.
TEST(ConvertTest, RoundsToNearestEven) {
  const std::vector<float> values = {1.0f,
                                     1.0f + 0x1p-8f,
                                     1.0f + 0x1.8p-7f,
                                     1.0f + 0x1.02p-8f,
                                     -0.0f,
                                     std::numeric_limits<float>::infinity(),
                                     std::numeric_limits<float>::max(),
                                     0x1p-149f,
                                     -3.0f};
  const std::vector<std::uint16_t> want = {0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x8000,
                                           0x7F80, 0x7F80, 0x0000, 0xC040};
  on_each_instruction_set([&] {
    std::vector<std::uint16_t> got(values.size());
    narrow(values.data(), values.size(), got.data());
    EXPECT_EQ(got, want);
  });
}

TEST(ConvertTest, NotANumberStays) {
  const std::vector<std::uint32_t> bits = {0x7F800001, 0xFFFFFFFF, 0x7FC00000, 0x7FFFFFFF};
  on_each_instruction_set([&] {
    for (const std::uint32_t b : bits) {
      const float value = std::bit_cast<float>(b);
      std::uint16_t half = 0;
      narrow(&value, 1, &half);
      float back = 0;
      widen(&half, 1, &back);
      EXPECT_TRUE(std::isnan(back)) << std::hex << b;
    }
  });
}

TEST(ConvertTest, WidensEveryValueExactly) {
  std::vector<std::uint16_t> all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  on_each_instruction_set([&] {
    std::vector<float> wide(all.size());
    widen(all.data(), all.size(), wide.data());
    for (std::size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(wide[i]), i << 16);
    }
  });
}

}  // namespace
}  // namespace penstock::model
