#include "model/ops/swiglu.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/model/ops/devices.hpp"

namespace penstock::model {
namespace {

template <class On>
class SwigluTest : public DeviceTest<typename On::Place> {
 protected:
  using Place = typename On::Place;
  using Element = typename On::Element;

  static std::vector<Element> run(std::size_t rows, std::size_t width,
                                  const std::vector<Element>& gate_up) {
    typename Place::template Array<Element> from(gate_up), out(std::vector<Element>(rows * width));
    swiglu(Place::device(), dtype_of<Element>(), rows, width, from.data(), out.data());
    return out.values();
  }
};
TYPED_TEST_SUITE(SwigluTest, DevicesAndTypes);

TYPED_TEST(SwigluTest, IsTheFormula) {
  using Device = typename TypeParam::Place;
  using T = typename TypeParam::Element;
  for (const std::size_t width : {1u, 24u, 1024u, 1537u}) {
    const std::size_t rows = 5;
    auto gate_up = random_values<T>(rows * 2 * width, 1, 30.0f);
    gate_up[0] = from_f32<T>(-200.0f);  // exp overflows; silu goes to zero
    Device::each_variant([&] {
      const std::vector<T> out = this->run(rows, width, gate_up);
      for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t i = 0; i < width; ++i) {
          const double gate = to_double(gate_up[r * 2 * width + i]);
          const double up = to_double(gate_up[(r * 2 + 1) * width + i]);
          const double want = gate / (1 + std::exp(-gate)) * up;
          // The least f16 is 6e-8.
          ASSERT_NEAR(
              to_double(out[r * width + i]), want,
              std::abs(want) * relative_error<T>() + (std::is_same_v<T, Half> ? 3.1e-8 : 1e-12));
        }
      }
    });
  }
}

TYPED_TEST(SwigluTest, RowsDoNotDependOnBatchOrThreads) {
  using T = typename TypeParam::Element;
  const auto gate_up = random_values<T>(64 * 2 * 192, 2);
  const std::vector<T> out = this->run(64, 192, gate_up);
  for (std::size_t r = 0; r < 64; ++r) {
    const auto first = gate_up.begin() + static_cast<std::ptrdiff_t>(r * 384);
    const std::vector<T> alone = this->run(1, 192, {first, first + 384});
    ASSERT_EQ(std::memcmp(alone.data(), out.data() + r * 192, 192 * sizeof(T)), 0) << r;
  }
}

}  // namespace
}  // namespace penstock::model
