#include "jobs/even_sample.hpp"

#include <gtest/gtest.h>

namespace penstock::jobs {
namespace {

TEST(EvenSample, AllOfFew) {
  EvenSample<int> sample;
  for (int i = 0; i < 100; ++i) sample.add(i);
  ASSERT_EQ(sample.values().size(), 100u);
  EXPECT_EQ(sample.values()[99], 99);
  EXPECT_EQ(sample.seen(), 100u);
}

TEST(EvenSample, OfManyAnEvenPart) {
  EvenSample<std::uint64_t> sample;
  constexpr std::uint64_t kAll = 5 * EvenSample<int>::kMost + 12345;
  for (std::uint64_t i = 0; i < kAll; ++i) sample.add(i);
  EXPECT_EQ(sample.seen(), kAll);
  ASSERT_LE(sample.values().size(), EvenSample<int>::kMost);
  ASSERT_GE(sample.values().size(), EvenSample<int>::kMost / 2);
  const std::uint64_t every = sample.values()[1];
  for (std::size_t i = 0; i < sample.values().size(); ++i) {
    ASSERT_EQ(sample.values()[i], i * every);
  }
  EXPECT_GT((sample.values().size() + 1) * every, kAll) << "up to the end";
}

}  // namespace
}  // namespace penstock::jobs
