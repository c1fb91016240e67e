#include "model/ops/embedding.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "tests/model/ops/devices.hpp"

namespace penstock::model {
namespace {

template <class Device>
class EmbeddingTest : public DeviceTest<Device> {};
TYPED_TEST_SUITE(EmbeddingTest, Devices);

TYPED_TEST(EmbeddingTest, CopiesTheRowsAskedFor) {
  for (const std::size_t width : {5u, 8u, 576u}) {
    std::vector<std::uint16_t> table(40 * width);
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::uint16_t>(i);
    std::vector<std::int32_t> ids;
    for (std::int32_t i = 0; i < 100; ++i) ids.push_back(i * 7 % 40);
    typename TypeParam::template Array<std::uint16_t> from(table);
    typename TypeParam::template Array<std::uint16_t> to(
        std::vector<std::uint16_t>(ids.size() * width));
    typename TypeParam::template Array<std::int32_t> rows(ids);
    gather_rows(TypeParam::device(), reinterpret_cast<const std::byte*>(from.data()), width * 2,
                {rows.data(), ids.size()}, reinterpret_cast<std::byte*>(to.data()));
    const auto out = to.values();
    for (std::size_t i = 0; i < out.size(); ++i) {
      ASSERT_EQ(out[i], static_cast<std::size_t>(ids[i / width]) * width + i % width);
    }
  }
}

}  // namespace
}  // namespace penstock::model
