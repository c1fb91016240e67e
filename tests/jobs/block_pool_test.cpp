#include "jobs/block_pool.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

namespace penstock::jobs {
namespace {

TEST(BlockPool, HandsOutTheLowestFreeBlocks) {
  BlockPool pool(6);
  std::vector<std::uint32_t> a, b;
  ASSERT_TRUE(pool.allocate(3, a));
  ASSERT_TRUE(pool.allocate(2, b));
  EXPECT_EQ(a, (std::vector<std::uint32_t>{0, 1, 2}));
  EXPECT_EQ(b, (std::vector<std::uint32_t>{3, 4}));
  pool.release(a);
  EXPECT_TRUE(a.empty());
  ASSERT_TRUE(pool.allocate(1, b));
  EXPECT_EQ(b, (std::vector<std::uint32_t>{3, 4, 0}));
  EXPECT_EQ(pool.free(), 3u);
}

TEST(BlockPool, TooManyChangesNothing) {
  BlockPool pool(2);
  std::vector<std::uint32_t> a{7};
  EXPECT_FALSE(pool.allocate(3, a));
  EXPECT_EQ(a, std::vector<std::uint32_t>{7});
  EXPECT_EQ(pool.free(), 2u);
}

TEST(BlockPool, RefusesBlocksThatAreNotInUse) {
  BlockPool pool(2);
  std::vector<std::uint32_t> a;
  ASSERT_TRUE(pool.allocate(1, a));
  std::vector<std::uint32_t> copy = a, foreign{9};
  pool.release(a);
  EXPECT_THROW(pool.release(copy), std::logic_error);
  EXPECT_THROW(pool.release(foreign), std::logic_error);
}

}  // namespace
}  // namespace penstock::jobs
