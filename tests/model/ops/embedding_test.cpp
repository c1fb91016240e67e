#include "model/ops/embedding.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace penstock::model {
namespace {

TEST(EmbeddingTest, CopiesTheRowsAskedFor) {
  const std::size_t width = 5;
  std::vector<std::uint16_t> table(40 * width);
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::uint16_t>(i);
  std::vector<std::int32_t> ids;
  for (std::int32_t i = 0; i < 100; ++i) ids.push_back(i * 7 % 40);
  std::vector<std::uint16_t> out(ids.size() * width);
  gather_rows(Cpu{2}, reinterpret_cast<const std::byte*>(table.data()), width * 2, ids,
              reinterpret_cast<std::byte*>(out.data()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(out[i], static_cast<std::size_t>(ids[i / width]) * width + i % width);
  }
}

}  // namespace
}  // namespace penstock::model
