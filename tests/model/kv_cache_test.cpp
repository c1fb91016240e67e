#include "model/kv_cache.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "model/error.hpp"
#include "model/host_memory.hpp"
#include "tests/support/memory.hpp"

namespace penstock::model {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(KvCacheTest, LayersLieApartAndAreZero) {
  const KvLayout layout{3, 64, io::DType::bf16};
  EXPECT_EQ(layout.block_bytes(), 3u * 32 * (64 + 64) * 2);
  const KvCache cache(layout, 4, 10);
  EXPECT_EQ(cache.blocks(), 10u);
  for (std::size_t layer = 0; layer < 4; ++layer) {
    EXPECT_EQ(cache.layer(layer), cache.layer(0) + layer * 10 * layout.block_bytes());
    for (std::size_t i = 0; i < 10 * layout.block_bytes(); ++i) {
      ASSERT_EQ(cache.layer(layer)[i], std::byte{0});
    }
  }
}

TEST(KvCacheTest, ValuesArePaddedToWholeVectors) {
  const KvLayout layout{1, 40, io::DType::f32};
  EXPECT_EQ(layout.value_stride(), 48u);
  EXPECT_EQ(layout.key_tile_bytes(), 40u * 32 * 4);
  EXPECT_EQ(layout.value_tile_bytes(), 48u * 32 * 4);
}

TEST(KvCacheTest, TakesMemoryAsItIsUsed) {
  const KvLayout layout{8, 128, io::DType::bf16};
  constexpr std::size_t kSize = std::size_t{512} << 20;
  constexpr std::size_t kSlack = std::size_t{64} << 20;
  if (available_memory_bytes() < 2 * kSize) GTEST_SKIP() << "needs 1 GiB of free memory";
  const std::size_t before = support::resident_memory_bytes();
  const KvCache cache(layout, 1, static_cast<std::uint32_t>(kSize / layout.block_bytes()));
  EXPECT_LT(support::resident_memory_bytes(), before + kSlack);
  std::fill_n(cache.layer(0), kSize / 2, std::byte{1});
  EXPECT_GT(support::resident_memory_bytes(), before + kSize / 2 - kSlack);
  EXPECT_LT(support::resident_memory_bytes(), before + kSize / 2 + kSlack);
}

TEST(KvCacheTest, MoreThanThereIsIsRefused) {
  const KvLayout layout{128, 256, io::DType::f32};
  const auto huge = [&] { KvCache(layout, 126, std::numeric_limits<std::uint32_t>::max()); };
  EXPECT_THAT(huge, ThrowsMessage<ModelError>(HasSubstr("memory that are available")));
  const auto wrapping = [&] {
    KvCache(layout, std::size_t{1} << 30, std::numeric_limits<std::uint32_t>::max());
  };
  EXPECT_THAT(wrapping, ThrowsMessage<ModelError>(HasSubstr("memory that are available")));
}

TEST(KvCacheTest, NoBlocksAreRefused) {
  EXPECT_THAT(
      [] {
        KvCache({1, 64, io::DType::f32}, 1, 0);
      },
      ThrowsMessage<ModelError>(HasSubstr("no blocks")));
}

TEST(HostMemoryTest, IsPlausible) {
  EXPECT_GT(available_memory_bytes(), std::uint64_t{1} << 20);
  EXPECT_LT(available_memory_bytes(), std::uint64_t{1} << 50);
}

}  // namespace
}  // namespace penstock::model
