#include "model/ops/add.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/model/ops/ops_support.hpp"

namespace penstock::model {
namespace {

template <class T>
class AddTest : public testing::Test {};
using Types = testing::Types<float, std::uint16_t>;
TYPED_TEST_SUITE(AddTest, Types);

TYPED_TEST(AddTest, AddsInF32AndRoundsOnce) {
  using T = TypeParam;
  for (const std::size_t count : {1u, 15u, 4096u, 30001u}) {
    const auto a = random_values<T>(count, 1), b = random_values<T>(count, 2);
    std::vector<T> want(count);
    for (std::size_t i = 0; i < count; ++i) {
      want[i] =
          from_f32<T>(static_cast<float>(to_double(a[i])) + static_cast<float>(to_double(b[i])));
    }
    on_each_instruction_set([&] {
      std::vector<T> out(count);
      add(Cpu{2}, dtype_of<T>(), a.data(), b.data(), count, out.data());
      EXPECT_EQ(std::memcmp(out.data(), want.data(), count * sizeof(T)), 0) << count;
    });
  }
}

}  // namespace
}  // namespace penstock::model
