#include "model/ops/rms_norm.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "model/ops/add.hpp"
#include "tests/model/ops/ops_support.hpp"

namespace penstock::model {
namespace {

template <class T>
class RmsNormTest : public testing::Test {};
using Types = testing::Types<float, std::uint16_t>;
TYPED_TEST_SUITE(RmsNormTest, Types);

template <class T>
RmsNorm arguments(std::size_t rows, std::size_t width, std::vector<T>& x,
                  const std::vector<T>& delta, const std::vector<float>& weight,
                  std::vector<T>& out) {
  RmsNorm args;
  args.rows = rows;
  args.width = width;
  args.dtype = dtype_of<T>();
  args.x = x.data();
  args.delta = delta.empty() ? nullptr : delta.data();
  args.weight = weight.data();
  args.eps = 1e-5f;
  args.out = out.data();
  return args;
}

TYPED_TEST(RmsNormTest, IsTheFormulaOnEveryInstructionSet) {
  using T = TypeParam;
  for (const std::size_t width : {1u, 7u, 16u, 33u, 576u}) {
    const std::size_t rows = 11;
    const auto x = random_values<T>(rows * width, 1);
    const auto delta = random_values<T>(rows * width, 2);
    const auto weight = random_values<float>(width, 3);
    on_each_instruction_set([&] {
      auto sum = x;
      std::vector<T> out(rows * width);
      rms_norm(Cpu{2}, arguments(rows, width, sum, delta, weight, out));
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
          EXPECT_NEAR(to_double(out[r * width + i]), want,
                      std::abs(want) * relative_error<T>() + 1e-12);
        }
      }
    });
  }
}

TYPED_TEST(RmsNormTest, WithoutDeltaLeavesTheInputAlone) {
  using T = TypeParam;
  const auto before = random_values<T>(3 * 40, 4);
  auto x = before;
  std::vector<T> out(x.size());
  const std::vector<float> weight(40, 1.0f);
  rms_norm(Cpu{1}, arguments(3, 40, x, {}, weight, out));
  EXPECT_EQ(x, before);
}

// A stage that ends with the addition and one that goes on to the norm must agree.
TYPED_TEST(RmsNormTest, AddsAsAddDoes) {
  using T = TypeParam;
  const auto x = random_values<T>(37 * 577, 5);
  const auto delta = random_values<T>(37 * 577, 6, 0.01f);
  auto sum = x;
  std::vector<T> out(x.size());
  const std::vector<float> weight(577, 1.0f);
  rms_norm(Cpu{2}, arguments(37, 577, sum, delta, weight, out));
  std::vector<T> added(x.size());
  add(Cpu{2}, dtype_of<T>(), x.data(), delta.data(), x.size(), added.data());
  EXPECT_EQ(added, sum);
}

TYPED_TEST(RmsNormTest, RowsDoNotDependOnBatchOrThreads) {
  using T = TypeParam;
  const auto x = random_values<T>(64 * 576, 7);
  const auto weight = random_values<float>(576, 8);
  auto batch = x;
  std::vector<T> out(x.size());
  rms_norm(Cpu{2}, arguments(64, 576, batch, {}, weight, out));
  for (std::size_t r = 0; r < 64; ++r) {
    std::vector<T> row(x.begin() + static_cast<std::ptrdiff_t>(r * 576),
                       x.begin() + static_cast<std::ptrdiff_t>((r + 1) * 576));
    std::vector<T> alone(576);
    rms_norm(Cpu{1}, arguments(1, 576, row, {}, weight, alone));
    ASSERT_EQ(std::memcmp(alone.data(), out.data() + r * 576, 576 * sizeof(T)), 0) << r;
  }
}

}  // namespace
}  // namespace penstock::model
