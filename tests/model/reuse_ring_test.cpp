#include "model/reuse_ring.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace penstock::model {
namespace {

struct Entry {
  int name = 0;
  std::unique_ptr<int> only_moved;
  std::vector<int>* waited = nullptr;
  void wait_until_free() { waited->push_back(name); }
};

// An entry comes again only behind all others, and is waited for before it is given out.
TEST(ReuseRingTest, WaitsForTheEntryThatItGives) {
  std::vector<int> waited;
  std::vector<Entry> entries(3);
  for (int i = 0; i < 3; ++i) {
    entries[static_cast<std::size_t>(i)].name = i;
    entries[static_cast<std::size_t>(i)].waited = &waited;
  }
  ReuseRing<Entry> ring(std::move(entries));
  const Entry* const first = &ring.next();
  EXPECT_EQ(ring.next().name, 1);
  EXPECT_EQ(ring.next().name, 2);
  EXPECT_EQ(&ring.next(), first);
  EXPECT_EQ(waited, (std::vector<int>{0, 1, 2, 0}));
}

}  // namespace
}  // namespace penstock::model
