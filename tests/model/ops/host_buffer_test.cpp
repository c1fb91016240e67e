#include "model/ops/host_buffer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "model/error.hpp"
#include "tests/support/memory.hpp"

namespace penstock::model {
namespace {

TEST(HostBufferTest, IsZeroedAndAligned) {
  for (const std::size_t size : {1u, 100u, (2u << 20) - 1, (5u << 20) + 3}) {
    const HostBuffer buffer(size, 2, "a test");
    ASSERT_EQ(buffer.size_bytes(), size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
    for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(buffer.data()[i], std::byte{0});
  }
}

TEST(HostBufferTest, MovesAndLeavesEmpty) {
  HostBuffer first(10, 1, "a test");
  HostBuffer second = std::move(first);
  EXPECT_NE(second.data(), nullptr);
  EXPECT_EQ(first.data(), nullptr);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(first.size_bytes(), 0u);
}

TEST(HostBufferTest, LazyOneIsZeroedAndMoves) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{100}, (std::size_t{5} << 20) + 3}) {
    HostBuffer first = HostBuffer::lazy(size, "a test");
    const HostBuffer buffer = std::move(first);
    ASSERT_EQ(buffer.size_bytes(), size);
    EXPECT_EQ(first.data(), nullptr);  // NOLINT(bugprone-use-after-move)
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
    for (std::size_t i = 0; i < size; ++i) ASSERT_EQ(buffer.data()[i], std::byte{0});
  }
}

TEST(HostBufferTest, LazyAndPlainReplaceEachOther) {
  constexpr std::size_t kSize = std::size_t{64} << 20;
  constexpr std::size_t kSlack = std::size_t{16} << 20;
  HostBuffer buffer(100, 1, "a test");
  const std::size_t before = support::resident_memory_bytes();
  for (int round = 0; round < 2; ++round) {
    buffer = HostBuffer::lazy(kSize, "a test");
    std::fill_n(buffer.data(), kSize, std::byte{1});
    EXPECT_GT(support::resident_memory_bytes(), before + kSize - kSlack);
    buffer = HostBuffer(100, 1, "a test");
    EXPECT_EQ(buffer.size_bytes(), 100u);
    EXPECT_LT(support::resident_memory_bytes(), before + kSlack);
  }
  buffer = HostBuffer::lazy(kSize, "a test");
  buffer = HostBuffer::lazy(64, "a test");
  buffer = {};
  EXPECT_EQ(buffer.data(), nullptr);
}

TEST(HostBufferTest, ImpossibleSizeIsAnErrorWithItsPurpose) {
  constexpr std::size_t kImpossible = std::numeric_limits<std::size_t>::max() - 5;
  const auto names_it = testing::ThrowsMessage<ModelError>(testing::HasSubstr("the KV cache"));
  EXPECT_THAT([] { HostBuffer(kImpossible, 1, "the KV cache"); }, names_it);
  EXPECT_THAT([] { HostBuffer::lazy(kImpossible, "the KV cache"); }, names_it);
}

}  // namespace
}  // namespace penstock::model
