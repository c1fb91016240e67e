#include "model/ops/rope.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "tests/model/ops/devices.hpp"

namespace penstock::model {
namespace {

ModelConfig config_with(std::int64_t head_dim, double theta) {
  ModelConfig config;
  config.head_dim = head_dim;
  config.rope_theta = theta;
  return config;
}

TEST(RopeFrequenciesTest, FallGeometrically) {
  const auto frequencies = rope_frequencies(config_with(64, 10000.0));
  ASSERT_EQ(frequencies.size(), 32u);
  EXPECT_EQ(frequencies[0], 1.0f);
  EXPECT_NEAR(frequencies[8], 0.1, 1e-7);     // 10000^(-16/64)
  EXPECT_NEAR(frequencies[16], 0.01, 1e-8);   // 10000^(-32/64)
  EXPECT_NEAR(frequencies[24], 0.001, 1e-9);  // 10000^(-48/64)
}

TEST(RopeFrequenciesTest, LinearScalingDivides) {
  auto config = config_with(64, 10000.0);
  config.rope_scaling.kind = RopeScaling::Kind::linear;
  config.rope_scaling.factor = 4.0;
  EXPECT_EQ(rope_frequencies(config)[0], 0.25f);
  EXPECT_NEAR(rope_frequencies(config)[16], 0.0025, 1e-9);
}

// Llama 3.1's own setting. The wavelengths 2 pi / f of theta 500000 and head_dim 128 pass the
// limits 8192 / 4 and 8192 / 1 between i = 28 and 36; the middle is worked out in double.
TEST(RopeFrequenciesTest, Llama3ScalingKeepsShortAndDividesLongWavelengths) {
  auto config = config_with(128, 500000.0);
  config.rope_scaling = {RopeScaling::Kind::llama3, 8.0, 1.0, 4.0, 8192};
  const auto scaled = rope_frequencies(config);
  const auto plain = rope_frequencies(config_with(128, 500000.0));
  int kept = 0, divided = 0, blended = 0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const double f = plain[i];
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength < 8192.0 / 4) {
      EXPECT_EQ(scaled[i], plain[i]) << i;
      ++kept;
    } else if (wavelength > 8192.0) {
      EXPECT_NEAR(scaled[i], f / 8, f * 1e-6) << i;
      ++divided;
    } else {
      const double smooth = (8192.0 / wavelength - 1.0) / (4.0 - 1.0);
      EXPECT_NEAR(scaled[i], (1 - smooth) * f / 8 + smooth * f, f * 1e-6) << i;
      ++blended;
    }
  }
  EXPECT_GT(kept, 20);
  EXPECT_GT(divided, 20);
  EXPECT_GT(blended, 2);
}

template <class On>
class RopeTest : public DeviceTest<typename On::Place> {};
TYPED_TEST_SUITE(RopeTest, DevicesAndTypes);

TYPED_TEST(RopeTest, TurnsPairsOfTheTwoHalves) {
  using Device = typename TypeParam::Place;
  using T = typename TypeParam::Element;
  for (const std::size_t head_dim : {2u, 16u, 40u, 64u, 80u}) {
    const std::size_t rows = 9, heads = 3, stride = 5 * head_dim;
    const std::vector<std::uint32_t> positions = {0, 1, 2, 31, 32, 500, 8191, 3, 3};
    const auto frequencies =
        rope_frequencies(config_with(static_cast<std::int64_t>(head_dim), 10000.0));
    const auto before = random_values<T>(rows * stride, 3);
    Device::each_variant([&] {
      typename Device::template Array<float> table(std::vector<float>(rows * head_dim));
      typename Device::template Array<float> frequencies_there(frequencies);
      typename Device::template Array<std::uint32_t> positions_there(positions);
      rope_table(Device::device(), {positions_there.data(), rows},
                 {frequencies_there.data(), frequencies.size()}, table.data());
      typename Device::template Array<T> turned(before);
      Rope args;
      args.rows = rows;
      args.heads = heads;
      args.head_dim = head_dim;
      args.row_stride = stride;
      args.dtype = dtype_of<T>();
      args.table = table.data();
      args.x = turned.data();
      rope(Device::device(), args);
      const std::vector<T> x = turned.values();
      for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t row = i / stride, head = i % stride / head_dim, at = i % head_dim;
        if (head >= heads) {  // the values behind the keys
          ASSERT_EQ(x[i], before[i]);
          continue;
        }
        const std::size_t half = head_dim / 2;
        const double angle =
            static_cast<double>(static_cast<float>(positions[row]) * frequencies[at % half]);
        const std::size_t start = i - at;
        const double low = to_double(before[start + at % half]);
        const double high = to_double(before[start + at % half + half]);
        const double want = at < half ? low * std::cos(angle) - high * std::sin(angle)
                                      : high * std::cos(angle) + low * std::sin(angle);
        ASSERT_NEAR(to_double(x[i]), want, std::abs(want) * relative_error<T>() + 1e-6);
      }
    });
  }
}

}  // namespace
}  // namespace penstock::model
