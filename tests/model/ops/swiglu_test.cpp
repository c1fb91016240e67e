#include "model/ops/swiglu.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/model/ops/ops_support.hpp"

namespace penstock::model {
namespace {

template <class T>
class SwigluTest : public testing::Test {};
using Types = testing::Types<float, std::uint16_t>;
TYPED_TEST_SUITE(SwigluTest, Types);

TYPED_TEST(SwigluTest, IsTheFormulaOnEveryInstructionSet) {
  using T = TypeParam;
  for (const std::size_t width : {1u, 24u, 1024u, 1537u}) {
    const std::size_t rows = 5;
    auto gate_up = random_values<T>(rows * 2 * width, 1, 30.0f);
    gate_up[0] = from_f32<T>(-200.0f);  // exp overflows; silu goes to zero
    on_each_instruction_set([&] {
      std::vector<T> out(rows * width);
      swiglu(Cpu{2}, dtype_of<T>(), rows, width, gate_up.data(), out.data());
      for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t i = 0; i < width; ++i) {
          const double gate = to_double(gate_up[r * 2 * width + i]);
          const double up = to_double(gate_up[(r * 2 + 1) * width + i]);
          const double want = gate / (1 + std::exp(-gate)) * up;
          ASSERT_NEAR(to_double(out[r * width + i]), want,
                      std::abs(want) * relative_error<T>() + 1e-12);
        }
      }
    });
  }
}

TYPED_TEST(SwigluTest, RowsDoNotDependOnBatchOrThreads) {
  using T = TypeParam;
  const auto gate_up = random_values<T>(64 * 2 * 1536, 2);
  std::vector<T> out(64 * 1536);
  swiglu(Cpu{2}, dtype_of<T>(), 64, 1536, gate_up.data(), out.data());
  std::vector<T> alone(1536);
  for (std::size_t r = 0; r < 64; ++r) {
    swiglu(Cpu{1}, dtype_of<T>(), 1, 1536, gate_up.data() + r * 2 * 1536, alone.data());
    ASSERT_EQ(std::memcmp(alone.data(), out.data() + r * 1536, 1536 * sizeof(T)), 0) << r;
  }
}

}  // namespace
}  // namespace penstock::model
