#include "model/ops/product_rows.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::model {
namespace {

TEST(ProductRowsTest, BucketsCoverAndWasteLittle) {
  const std::vector<std::size_t> buckets = product_row_buckets();
  EXPECT_EQ(buckets.front(), 16u);
  EXPECT_EQ(buckets.back(), kMostProductRows);
  EXPECT_LE(buckets.size(), 25u);
  for (std::size_t rows = 1; rows <= kMostProductRows; ++rows) {
    const std::size_t bucket = product_row_bucket(rows);
    ASSERT_GE(bucket, rows);
    EXPECT_THAT(buckets, testing::Contains(bucket));
    EXPECT_EQ(product_row_bucket(bucket), bucket);
    if (rows >= 64) {
      EXPECT_LE(bucket * 2, rows * 3) << rows;
    }
  }
}

TEST(ProductRowsTest, ACallOfTilesIsAmongThem) {
  EXPECT_THAT(product_row_buckets(), testing::Contains(kProductTileRows));
}

TEST(ProductRowsTest, PaddedRowsCoverCallsOfEveryKind) {
  for (std::size_t rows = 0; rows < 5000; ++rows) {
    std::size_t covered = 0;
    while (covered < rows) {
      covered += product_row_bucket(std::min(rows - covered, kMostProductRows));
    }
    const std::size_t padded = gpu_padded_rows(rows);
    EXPECT_GE(padded, covered);
    EXPECT_GE(padded, (rows + kProductTileRows - 1) / kProductTileRows * kProductTileRows);
    EXPECT_LE(padded, rows + 256);
  }
}

}  // namespace
}  // namespace penstock::model
