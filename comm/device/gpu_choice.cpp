#include "comm/device/gpu_choice.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace penstock::comm::device {
namespace {

constexpr int kNobody = -1;

// The ranks of one host. Each rank gets a GPU of its own where the lists allow it: a rank that
// finds all of its GPUs taken asks their owners to move to another one (augmenting paths, so that
// as many ranks as possible have one).
class Host {
 public:
  explicit Host(const std::vector<VisibleGpus>& ranks) : ranks_(ranks) {}

  void add(std::size_t rank) { members_.push_back(rank); }

  void choose(std::vector<GpuChoice>& choices) {
    for (const std::size_t rank : members_) {
      for (const std::string& uuid : ranks_[rank].uuids) owners_.emplace(uuid, kNobody);
    }
    std::vector<std::size_t> left;
    for (const std::size_t rank : members_) {
      std::map<std::string, bool> asked;
      if (!take_one(rank, asked)) left.push_back(rank);
    }
    std::map<std::string, int> sharers;
    for (const auto& [uuid, owner] : owners_) {
      if (owner == kNobody) continue;
      choices[static_cast<std::size_t>(owner)].gpu =
          position(static_cast<std::size_t>(owner), uuid);
      sharers[uuid] = 1;
    }
    for (const std::size_t rank : left) share_one(rank, sharers, choices[rank]);
    for (const std::size_t rank : members_) {
      if (choices[rank].gpu >= 0) choices[rank].sharers = sharers[uuid_of(rank, choices[rank])];
    }
  }

 private:
  bool take_one(std::size_t rank, std::map<std::string, bool>& asked) {
    // A free one first, in the rank's own order, so that nobody moves without need.
    for (const std::string& uuid : ranks_[rank].uuids) {
      if (owners_[uuid] == kNobody) {
        owners_[uuid] = static_cast<int>(rank);
        return true;
      }
    }
    for (const std::string& uuid : ranks_[rank].uuids) {
      if (std::exchange(asked[uuid], true)) continue;
      if (take_one(static_cast<std::size_t>(owners_[uuid]), asked)) {
        owners_[uuid] = static_cast<int>(rank);
        return true;
      }
    }
    return false;
  }

  void share_one(std::size_t rank, std::map<std::string, int>& sharers, GpuChoice& choice) const {
    const std::vector<std::string>& uuids = ranks_[rank].uuids;
    if (uuids.empty()) return;
    const auto least = std::min_element(
        uuids.begin(), uuids.end(),
        [&](const std::string& a, const std::string& b) { return sharers[a] < sharers[b]; });
    choice.gpu = static_cast<int>(least - uuids.begin());
    ++sharers[*least];
  }

  int position(std::size_t rank, const std::string& uuid) const {
    const std::vector<std::string>& uuids = ranks_[rank].uuids;
    return static_cast<int>(std::find(uuids.begin(), uuids.end(), uuid) - uuids.begin());
  }

  const std::string& uuid_of(std::size_t rank, const GpuChoice& choice) const {
    return ranks_[rank].uuids[static_cast<std::size_t>(choice.gpu)];
  }

  const std::vector<VisibleGpus>& ranks_;
  std::vector<std::size_t> members_;
  std::map<std::string, int> owners_;  // by UUID: rank, or kNobody
};

}  // namespace

std::vector<GpuChoice> choose_gpus(const std::vector<VisibleGpus>& ranks) {
  std::map<std::string, Host> hosts;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    hosts.try_emplace(ranks[i].host, ranks).first->second.add(i);
  }
  std::vector<GpuChoice> choices(ranks.size());
  for (auto& [name, host] : hosts) host.choose(choices);
  return choices;
}

}  // namespace penstock::comm::device
