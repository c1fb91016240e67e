#include "model/ops/rms_norm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "model/ops/add.hpp"
#include "tests/model/ops/devices.hpp"

namespace penstock::model {
namespace {

template <class On>
class RmsNormTest : public DeviceTest<typename On::Place> {
 protected:
  using Place = typename On::Place;
  using Element = typename On::Element;

  struct Result {
    std::vector<Element> x;
    std::vector<Element> out;
  };
  // No delta: none.
  static Result run(std::size_t rows, std::size_t width, const std::vector<Element>& x,
                    const std::vector<Element>& delta, const std::vector<float>& weight) {
    typename Place::template Array<Element> sum(x), more(delta),
        out(std::vector<Element>(x.size()));
    typename Place::template Array<float> weights(weight);
    RmsNorm args;
    args.rows = rows;
    args.width = width;
    args.dtype = dtype_of<Element>();
    args.x = sum.data();
    args.delta = delta.empty() ? nullptr : more.data();
    args.weight = weights.data();
    args.eps = 1e-5f;
    args.out = out.data();
    rms_norm(Place::device(), args);
    return {sum.values(), out.values()};
  }
};
TYPED_TEST_SUITE(RmsNormTest, DevicesAndTypes);

TYPED_TEST(RmsNormTest, IsTheFormula) {
  using T = typename TypeParam::Element;
  for (const std::size_t width : {1u, 7u, 16u, 33u, 576u}) {
    const std::size_t rows = 11;
    const auto x = random_values<T>(rows * width, 1);
    const auto delta = random_values<T>(rows * width, 2);
    const auto weight = random_values<float>(width, 3);
    TypeParam::Place::each_variant([&] {
      const auto [sum, out] = this->run(rows, width, x, delta, weight);
      for (std::size_t r = 0; r < rows; ++r) {
        double squares = 0;
        for (std::size_t i = r * width; i < (r + 1) * width; ++i) {
          // f32 holds the sum of two bf16 of like size exactly but for its last bits.
          const float exact =
              static_cast<float>(to_double(x[i])) + static_cast<float>(to_double(delta[i]));
          ASSERT_EQ(sum[i], from_f32<T>(exact)) << "width " << width << " element " << i;
          squares += to_double(sum[i]) * to_double(sum[i]);
        }
        const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-5);
        for (std::size_t i = 0; i < width; ++i) {
          const double want = to_double(sum[r * width + i]) * scale * to_double(weight[i]);
          EXPECT_NEAR(
              to_double(out[r * width + i]), want,
              std::abs(want) * relative_error<T>() + (std::is_same_v<T, Half> ? 3.1e-8 : 1e-12));
        }
      }
    });
  }
}

TYPED_TEST(RmsNormTest, WithoutDeltaLeavesTheInputAlone) {
  using T = typename TypeParam::Element;
  const auto before = random_values<T>(3 * 40, 4);
  EXPECT_EQ(this->run(3, 40, before, {}, std::vector<float>(40, 1.0f)).x, before);
}

// A stage that ends with the addition and one that goes on to the norm must agree.
TYPED_TEST(RmsNormTest, AddsAsAddDoes) {
  using Device = typename TypeParam::Place;
  using T = typename TypeParam::Element;
  const auto x = random_values<T>(37 * 577, 5);
  const auto delta = random_values<T>(37 * 577, 6, 0.01f);
  const std::vector<T> sum = this->run(37, 577, x, delta, std::vector<float>(577, 1.0f)).x;
  typename Device::template Array<T> a(x), b(delta), added(std::vector<T>(x.size()));
  add(Device::device(), dtype_of<T>(), a.data(), b.data(), x.size(), added.data());
  EXPECT_EQ(added.values(), sum);
}

TYPED_TEST(RmsNormTest, RowsDoNotDependOnBatchOrThreads) {
  using T = typename TypeParam::Element;
  const auto x = random_values<T>(64 * 576, 7);
  const auto weight = random_values<float>(576, 8);
  const std::vector<T> out = this->run(64, 576, x, {}, weight).out;
  for (std::size_t r = 0; r < 64; ++r) {
    const std::vector<T> row(x.begin() + static_cast<std::ptrdiff_t>(r * 576),
                             x.begin() + static_cast<std::ptrdiff_t>((r + 1) * 576));
    const std::vector<T> alone = this->run(1, 576, row, {}, weight).out;
    ASSERT_EQ(std::memcmp(alone.data(), out.data() + r * 576, 576 * sizeof(T)), 0) << r;
  }
}

}  // namespace
}  // namespace penstock::model
