#include "model/ops/add.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/model/ops/devices.hpp"

namespace penstock::model {
namespace {

template <class On>
class AddTest : public DeviceTest<typename On::Place> {};
TYPED_TEST_SUITE(AddTest, DevicesAndTypes);

TYPED_TEST(AddTest, AddsInF32AndRoundsOnce) {
  using Device = typename TypeParam::Place;
  using T = typename TypeParam::Element;
  for (const std::size_t count : {1u, 15u, 4096u, 30001u}) {
    const auto a = random_values<T>(count, 1), b = random_values<T>(count, 2);
    std::vector<T> want(count);
    for (std::size_t i = 0; i < count; ++i) {
      want[i] =
          from_f32<T>(static_cast<float>(to_double(a[i])) + static_cast<float>(to_double(b[i])));
    }
    Device::each_variant([&] {
      const std::vector<T> zeros(count);
      typename Device::template Array<T> x(a), y(b), out(zeros);
      add(Device::device(), dtype_of<T>(), x.data(), y.data(), count, out.data());
      const std::vector<T> got = out.values();
      EXPECT_EQ(std::memcmp(got.data(), want.data(), count * sizeof(T)), 0) << count;
    });
  }
}

}  // namespace
}  // namespace penstock::model
