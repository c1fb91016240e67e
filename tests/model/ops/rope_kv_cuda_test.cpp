#include <gtest/gtest.h>

#include <cstring>

#include "model/ops/kv_write.hpp"
#include "model/ops/rope.hpp"
#include "tests/model/ops/devices.hpp"

namespace penstock::model {
namespace {

template <class Device, class From, class To>
struct Types {
  using Place = Device;
  using Activation = From;
  using Cache = To;
};

template <class Types>
class RopeKvTest : public DeviceTest<typename Types::Place> {};
using AllTypes =
    testing::Types<Types<OnEmulator, float, float>, Types<OnEmulator, std::uint16_t, std::uint16_t>,
                   Types<OnEmulator, Half, Half>, Types<OnEmulator, float, std::uint16_t>,
                   Types<OnEmulator, std::uint16_t, float>, Types<OnGpu, float, float>,
                   Types<OnGpu, std::uint16_t, std::uint16_t>, Types<OnGpu, Half, Half>,
                   Types<OnGpu, float, std::uint16_t>, Types<OnGpu, std::uint16_t, float>>;
TYPED_TEST_SUITE(RopeKvTest, AllTypes);

// Rotates as rope, and puts keys and values where CudaKvLayout says; everything else keeps its
// bytes.
TYPED_TEST(RopeKvTest, RotatesAndWrites) {
  using Device = typename TypeParam::Place;
  using From = typename TypeParam::Activation;
  using To = typename TypeParam::Cache;
  for (const std::size_t head_dim : {40u, 64u, 6u}) {
    const std::size_t heads = 4, kv_heads = 2, rows = 4;
    const std::size_t stride = (heads + 2 * kv_heads) * head_dim;
    const std::vector<std::uint32_t> positions = {30, 31, 32, 5};
    const std::vector<std::uint32_t> blocks = {3, 3, 0, 2};
    const auto before = random_values<From>(rows * stride, 1);
    const auto table = random_values<float>(rows * head_dim, 2, 1.0f);
    CudaKvLayout layout;
    layout.kv_heads = kv_heads;
    layout.head_dim = head_dim;
    layout.dtype = dtype_of<To>();

    typename Device::template Array<From> rotated(before), written(before);
    typename Device::template Array<float> table_there(table);
    typename Device::template Array<std::uint32_t> blocks_there(blocks), positions_there(positions);
    const std::vector<std::byte> untouched(4 * layout.block_bytes(), std::byte{0x5A});
    typename Device::template Array<std::byte> cache(untouched);
    Rope rotation;
    rotation.rows = rows;
    rotation.heads = heads + kv_heads;
    rotation.head_dim = head_dim;
    rotation.row_stride = stride;
    rotation.dtype = dtype_of<From>();
    rotation.table = table_there.data();
    rotation.x = rotated.data();
    rope(Device::device(), rotation);
    RopeKvWrite args;
    args.rows = rows;
    args.heads = heads;
    args.dtype = dtype_of<From>();
    args.row_stride = stride;
    args.qkv = written.data();
    args.table = table_there.data();
    args.blocks = blocks_there.data();
    args.positions = positions_there.data();
    args.layout = layout;
    args.cache = cache.data();
    rope_and_kv_write(Device::device(), args);

    const std::vector<From> x = written.values(), want_x = rotated.values();
    ASSERT_EQ(std::memcmp(x.data(), want_x.data(), x.size() * sizeof(From)), 0);
    std::vector<std::byte> want = untouched;
    const std::size_t tile = 32 * head_dim;
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t head = 0; head < kv_heads; ++head) {
        To* keys = reinterpret_cast<To*>(want.data()) + (blocks[row] * kv_heads + head) * 2 * tile +
                   positions[row] % 32 * head_dim;
        for (std::size_t i = 0; i < head_dim; ++i) {
          const std::size_t k = row * stride + (heads + head) * head_dim + i;
          const std::size_t v = k + kv_heads * head_dim;
          keys[i] = from_f32<To>(static_cast<float>(to_double(x[k])));
          keys[tile + i] = from_f32<To>(static_cast<float>(to_double(before[v])));
        }
      }
    }
    const std::vector<std::byte> got = cache.values();
    ASSERT_EQ(std::memcmp(got.data(), want.data(), want.size()), 0) << head_dim;
  }
}

}  // namespace
}  // namespace penstock::model
