#include "comm/device/gpu_choice.hpp"

#include <gtest/gtest.h>

#include <set>
#include <utility>

namespace penstock::comm::device {
namespace {

using Choices = std::vector<std::pair<int, int>>;  // GPU, sharers

Choices choose(const std::vector<VisibleGpus>& ranks) {
  Choices choices;
  for (const GpuChoice& choice : choose_gpus(ranks)) {
    choices.emplace_back(choice.gpu, choice.sharers);
  }
  return choices;
}

TEST(ChooseGpus, RanksOfAHostTakeItsGpusInOrder) {
  const std::vector<std::string> four = {"A", "B", "C", "D"};
  EXPECT_EQ(choose({{"n1", four}, {"n1", four}, {"n1", four}, {"n1", four}}),
            (Choices{{0, 1}, {1, 1}, {2, 1}, {3, 1}}));
}

TEST(ChooseGpus, CountsRanksOfTheHostAndNotOfTheWorld) {
  // World ranks 0 to 3, dealt out over two hosts in turn.
  const std::vector<std::string> a = {"A0", "A1"};
  const std::vector<std::string> b = {"B0", "B1"};
  EXPECT_EQ(choose({{"a", a}, {"b", b}, {"a", a}, {"b", b}}),
            (Choices{{0, 1}, {0, 1}, {1, 1}, {1, 1}}));
}

TEST(ChooseGpus, EachRankSeesOnlyItsOwn) {
  // Slurm's --gpus-per-task: every rank numbers its GPU 0.
  EXPECT_EQ(choose({{"n", {"A"}}, {"n", {"B"}}, {"n", {"C"}}}), (Choices{{0, 1}, {0, 1}, {0, 1}}));
}

TEST(ChooseGpus, OrderOfCudaVisibleDevicesIsKept) {
  // CUDA_VISIBLE_DEVICES=3,1: CUDA's number 0 is GPU D.
  const std::vector<std::string> visible = {"D", "B"};
  EXPECT_EQ(choose({{"n", visible}, {"n", visible}}), (Choices{{0, 1}, {1, 1}}));
  // Each rank has them in another order, nearest first (--gpu-bind=closest).
  EXPECT_EQ(choose({{"n", {"A", "B"}}, {"n", {"B", "A"}}}), (Choices{{0, 1}, {0, 1}}));
}

TEST(ChooseGpus, RanksMakeRoomForThoseThatSeeLess) {
  EXPECT_EQ(choose({{"n", {"A", "B"}}, {"n", {"A"}}}), (Choices{{1, 1}, {0, 1}}));
  EXPECT_EQ(choose({{"n", {"A", "B"}}, {"n", {"A", "B", "C"}}, {"n", {"A"}}}),
            (Choices{{1, 1}, {2, 1}, {0, 1}}));
}

TEST(ChooseGpus, MoreRanksThanGpusShareThemEvenly) {
  const std::vector<std::string> two = {"A", "B"};
  EXPECT_EQ(choose({{"n", two}, {"n", two}, {"n", two}, {"n", two}, {"n", two}}),
            (Choices{{0, 3}, {1, 2}, {0, 3}, {1, 2}, {0, 3}}));
  EXPECT_EQ(choose({{"n", {"A"}}, {"n", {"A"}}}), (Choices{{0, 2}, {0, 2}}));
}

TEST(ChooseGpus, RanksThatSeeNoneGetNone) {
  EXPECT_EQ(choose({{"n", {}}, {"n", {"A"}}, {"m", {}}}), (Choices{{-1, 0}, {0, 1}, {-1, 0}}));
  EXPECT_EQ(choose({}), Choices{});
}

TEST(ChooseGpus, SameUuidOnAnotherHostIsAnotherGpu) {
  // Virtual machines may pass such things on.
  EXPECT_EQ(choose({{"a", {"A"}}, {"b", {"A"}}}), (Choices{{0, 1}, {0, 1}}));
}

// All small cases: whenever everyone can have a GPU of its own, everyone has.
TEST(ChooseGpus, NobodySharesWithoutNeed) {
  const std::vector<std::string> names = {"A", "B", "C"};
  for (unsigned masks = 0; masks < 512; ++masks) {
    std::vector<VisibleGpus> ranks(3);
    for (unsigned rank = 0; rank < 3; ++rank) {
      ranks[rank].host = "n";
      for (unsigned gpu = 0; gpu < 3; ++gpu) {
        if ((masks >> (3 * rank + gpu) & 1U) != 0) ranks[rank].uuids.push_back(names[gpu]);
      }
    }
    // The largest number of ranks with a GPU of their own, by trying everything.
    std::size_t most = 0;
    for (int a = -1; a < 3; ++a) {
      for (int b = -1; b < 3; ++b) {
        for (int c = -1; c < 3; ++c) {
          std::set<int> taken;
          bool possible = true;
          std::size_t served = 0;
          for (const auto& [rank, gpu] : {std::pair{0, a}, {1, b}, {2, c}}) {
            if (gpu < 0) continue;
            possible = possible && (masks >> (3 * rank + gpu) & 1) != 0 && taken.insert(gpu).second;
            ++served;
          }
          if (possible) most = std::max(most, served);
        }
      }
    }
    std::set<std::string> used;
    const std::vector<GpuChoice> choices = choose_gpus(ranks);
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      ASSERT_EQ(choices[i].gpu < 0, ranks[i].uuids.empty());
      if (choices[i].gpu >= 0)
        used.insert(ranks[i].uuids[static_cast<std::size_t>(choices[i].gpu)]);
    }
    ASSERT_EQ(used.size(), most) << masks;
  }
}

}  // namespace
}  // namespace penstock::comm::device
