#include "model/ops/kv_write.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/model/ops/ops_support.hpp"

namespace penstock::model {
namespace {

template <class From, class To>
struct Types {
  using Activation = From;
  using Cache = To;
};

template <class Pair>
class KvWriteTest : public testing::Test {};
using AllTypes = testing::Types<Types<float, float>, Types<float, std::uint16_t>,
                                Types<std::uint16_t, float>, Types<std::uint16_t, std::uint16_t>>;
TYPED_TEST_SUITE(KvWriteTest, AllTypes);

// Keys lie [head_dim][tokens], values [tokens][stride]; everything else keeps its bytes.
TYPED_TEST(KvWriteTest, PutsRowsWhereTheLayoutSays) {
  using From = typename TypeParam::Activation;
  using To = typename TypeParam::Cache;
  const KvLayout layout{2, 20, dtype_of<To>()};
  const std::size_t width = 2 * 20;
  const std::vector<std::uint32_t> positions = {30, 31, 32, 5};
  const std::vector<std::uint32_t> blocks = {3, 3, 0, 2};
  const auto k = random_values<From>(4 * width, 1), v = random_values<From>(4 * width, 2);
  std::vector<std::byte> cache(4 * layout.block_bytes(), std::byte{0x5A});
  auto want = cache;
  KvWrite args;
  args.rows = 4;
  args.dtype = dtype_of<From>();
  args.row_stride = width;
  args.k = k.data();
  args.v = v.data();
  args.blocks = blocks.data();
  args.positions = positions.data();
  args.layout = layout;
  args.cache = cache.data();
  kv_write(Cpu{2}, args);

  for (std::size_t row = 0; row < 4; ++row) {
    for (std::size_t head = 0; head < 2; ++head) {
      std::byte* tiles = want.data() + (blocks[row] * 2 + head) * (20 + 32) * 32 * sizeof(To);
      To* keys = reinterpret_cast<To*>(tiles);
      To* values = keys + 20 * 32;
      for (std::size_t i = 0; i < 20; ++i) {
        const std::size_t from = row * width + head * 20 + i;
        const std::size_t token = positions[row] % 32;
        keys[i * 32 + token] = from_f32<To>(static_cast<float>(to_double(k[from])));
        values[token * 32 + i] = from_f32<To>(static_cast<float>(to_double(v[from])));
      }
    }
  }
  EXPECT_EQ(std::memcmp(cache.data(), want.data(), want.size()), 0);
}

}  // namespace
}  // namespace penstock::model
