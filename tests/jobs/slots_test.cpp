// The number of slots: the formula by hand, and real trips through links that are slow or fail.

#include "jobs/slots.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "comm/local.hpp"
#include "jobs/round_trip.hpp"
#include "jobs/stage_clock.hpp"

namespace penstock::jobs {
namespace {

using std::chrono::milliseconds;
using testing::AnyOf;
using testing::ContainsRegex;
using testing::Each;
using testing::HasSubstr;
using testing::StartsWith;

constexpr std::size_t kRowBytes = 48;
constexpr std::uint32_t kSequences = 20;

TEST(SlotsFor, ByHandOfTripAndStep) {
  EXPECT_EQ(slots_for(1, 5, 1), 1u);
  EXPECT_EQ(slots_for(4, 0, 1), 5u);
  EXPECT_EQ(slots_for(4, 1, 1), 5u);
  EXPECT_EQ(slots_for(4, 1.1, 1), 6u);
  EXPECT_EQ(slots_for(4, 7, 2), 8u);
  EXPECT_EQ(slots_for(4, 7, 0), 5u);  // nothing is known of the step
  EXPECT_EQ(slots_for(4, 9, 1.8), 9u);
  EXPECT_EQ(slots_for(4, 9, 1), 9u);  // two a stage and one
  EXPECT_EQ(slots_for(2, 1e30, 1e-30), 5u);
  EXPECT_EQ(most_slots(1), 1u);
  EXPECT_EQ(most_slots(8), 17u);
}

// Takes `seconds` for each layer of a step in which 20 sequences decode at 1024 positions, and
// counts nothing else.
class LayerSeconds : public model::PartCost {
 public:
  explicit LayerSeconds(double seconds) : seconds_(seconds) {}
  double step() const override { return 0; }
  double embedding(const model::StepShape&) const override { return 0; }
  double layer(const model::StepShape& shape) const override {
    return shape.attended == 20 * 1024 ? seconds_ : 0;
  }
  double head(const model::StepShape&) const override { return 0; }

 private:
  double seconds_;
};

// One layer a stage, but two on the last.
StageCut cut_of(std::int64_t stages, double layer_seconds) {
  StageCut cut;
  cut.step = {1, 1, 1, 1};
  const auto parts = std::make_shared<LayerSeconds>(layer_seconds);
  for (std::int64_t i = 0; i < stages; ++i) {
    const bool last = i + 1 == stages;
    cut.ranges.push_back({i, i + (last ? 2 : 1), i == 0, last});
    cut.costs.emplace_back(parts, cut.ranges.back());
  }
  return cut;
}

// What arrives is told only some time later.
class LateReceiver : public comm::LinkReceiver {
 public:
  LateReceiver(std::unique_ptr<comm::LinkReceiver> link, milliseconds delay)
      : link_(std::move(link)), delay_(delay) {}
  comm::Ticket receive(std::span<std::byte> bytes) override {
    sizes.push_back(bytes.size());
    return link_->receive(bytes);
  }
  bool done(comm::Ticket ticket) override {
    if (!link_->done(ticket)) return false;
    const Ledger::Time now = steady_now();
    return now >= arrivals_.try_emplace(ticket, now).first->second + delay_;
  }
  void progress() override { link_->progress(); }

  std::vector<std::size_t> sizes;

 private:
  std::unique_ptr<comm::LinkReceiver> link_;
  milliseconds delay_;
  std::map<comm::Ticket, Ledger::Time> arrivals_;
};

// `body` with the endpoint of each stage on a thread of its own; what they threw, by rank.
std::vector<std::string> on_threads(int stages, int replicas,
                                    const std::function<void(comm::Endpoint&)>& body,
                                    milliseconds watchdog = std::chrono::seconds(20)) {
  std::vector<comm::Endpoint> endpoints = comm::local_endpoints(stages, replicas);
  std::vector<std::string> failures(endpoints.size());
  std::vector<std::jthread> threads;
  for (std::size_t rank = 0; rank < endpoints.size(); ++rank) {
    threads.emplace_back([&, rank, mine = std::move(endpoints[rank])]() mutable {
      comm::Endpoint endpoint = std::move(mine);
      endpoint.watchdog = watchdog;
      try {
        body(endpoint);
        endpoint.all().all_gather("", "the end", std::chrono::seconds(20));
      } catch (const std::exception& e) {
        failures[rank] = e.what();
      }
    });
  }
  threads.clear();
  return failures;
}

struct Chosen {
  std::vector<SlotChoice> of_ranks;
  std::vector<std::string> failures;
};

// `delay` is that of each edge of a replica.
Chosen choose(int stages, const std::vector<milliseconds>& delays, double layer_seconds) {
  const auto replicas = static_cast<int>(delays.size());
  Chosen chosen;
  chosen.of_ranks.resize(static_cast<std::size_t>(stages * replicas));
  chosen.failures = on_threads(stages, replicas, [&](comm::Endpoint& endpoint) {
    if (endpoint.previous) {
      endpoint.previous = std::make_unique<LateReceiver>(
          std::move(endpoint.previous), delays[static_cast<std::size_t>(endpoint.pipeline)]);
    }
    const auto idle = model::make_idle_stage(kRowBytes);
    chosen.of_ranks[static_cast<std::size_t>(endpoint.all().member())] =
        agree_on_slots(endpoint, *idle, cut_of(stages, layer_seconds), kSequences);
  });
  return chosen;
}

TEST(MeasuredSlots, OneMoreThanStagesWhereStepsAreLong) {
  const Chosen chosen = choose(3, {milliseconds(0)}, 500);
  EXPECT_THAT(chosen.failures, Each(""));
  for (const SlotChoice& one : chosen.of_ranks) {
    EXPECT_EQ(one.slots, 4u);
    EXPECT_GT(one.trip_seconds, 0);
    EXPECT_EQ(one.trip_seconds, chosen.of_ranks[0].trip_seconds);
  }
}

TEST(MeasuredSlots, MoreForSlowLinks) {
  // Two edges of 20 ms, and steps of 2 x 12 ms on the last stage: two more at least.
  const Chosen chosen = choose(3, {milliseconds(20)}, 0.012);
  EXPECT_THAT(chosen.failures, Each(""));
  for (const SlotChoice& one : chosen.of_ranks) {
    EXPECT_GE(one.trip_seconds, 0.04);
    EXPECT_GE(one.slots, 5u);
    EXPECT_EQ(one.slots, std::min(7u, slots_for(3, one.trip_seconds, 0.024)));
  }
}

TEST(MeasuredSlots, HowSlowTheLinksMayBeNeverMoreThanTwoAStageAndOne) {
  const Chosen chosen = choose(2, {milliseconds(5)}, 1e-9);
  EXPECT_THAT(chosen.failures, Each(""));
  for (const SlotChoice& one : chosen.of_ranks) EXPECT_EQ(one.slots, 5u);
}

TEST(MeasuredSlots, AllReplicasTakeTheMostThatAnyNeeds) {
  for (const bool first_is_slow : {true, false}) {
    const Chosen chosen = choose(2,
                                 {milliseconds(first_is_slow ? 60 : 0),  //
                                  milliseconds(first_is_slow ? 0 : 60)},
                                 0.025);
    EXPECT_THAT(chosen.failures, Each(""));
    ASSERT_EQ(chosen.of_ranks.size(), 4u);
    for (const SlotChoice& one : chosen.of_ranks) {
      EXPECT_GE(one.slots, 4u);
      EXPECT_GE(one.trip_seconds, 0.06);
    }
  }
}

TEST(RoundTrip, IsThatOfAStepOfAllSequences) {
  std::mutex mutex;
  std::vector<std::size_t> sizes;
  const auto failures = on_threads(3, 1, [&](comm::Endpoint& endpoint) {
    LateReceiver* link = nullptr;
    if (endpoint.previous) {
      auto late = std::make_unique<LateReceiver>(std::move(endpoint.previous), milliseconds(0));
      link = late.get();
      endpoint.previous = std::move(late);
    }
    const auto idle = model::make_idle_stage(kRowBytes);
    const double trip = measure_round_trip(endpoint, *idle, kSequences, cut_of(3, 1).slowest());
    EXPECT_EQ(trip > 0, endpoint.control->member() == 0);
    const std::lock_guard lock(mutex);
    if (link != nullptr) sizes.insert(sizes.end(), link->sizes.begin(), link->sizes.end());
  });
  EXPECT_THAT(failures, Each(""));
  EXPECT_THAT(sizes, Each(kSequences * kRowBytes));
  EXPECT_EQ(sizes.size(), 2u * 13);  // three to warm up, ten that count
}

TEST(RoundTrip, OfVerySlowLinksIsMeasuredForAFewSecondsOnly) {
  std::size_t messages = 0;
  double trip = 0;
  const auto failures = on_threads(2, 1, [&](comm::Endpoint& endpoint) {
    LateReceiver* link = nullptr;
    if (endpoint.previous) {
      auto late = std::make_unique<LateReceiver>(std::move(endpoint.previous), milliseconds(700));
      link = late.get();
      endpoint.previous = std::move(late);
    }
    const auto idle = model::make_idle_stage(kRowBytes);
    const double mine = measure_round_trip(endpoint, *idle, kSequences, cut_of(2, 1).slowest());
    if (link == nullptr) {
      trip = mine;
    } else {
      messages = link->sizes.size();
    }
  });
  EXPECT_THAT(failures, Each(""));
  EXPECT_GE(trip, 0.7);
  EXPECT_EQ(messages, 4u);  // the third ends behind two seconds, and one has to count
}

// Breaks, or falls silent, at its fifth message.
class BrokenReceiver : public comm::LinkReceiver {
 public:
  BrokenReceiver(std::unique_ptr<comm::LinkReceiver> link, milliseconds silence)
      : link_(std::move(link)), silence_(silence) {}
  comm::Ticket receive(std::span<std::byte> bytes) override {
    if (++messages_ == 5) {
      if (silence_ == silence_.zero()) throw std::runtime_error("the fake link broke");
      std::this_thread::sleep_for(silence_);
    }
    return link_->receive(bytes);
  }
  bool done(comm::Ticket ticket) override { return link_->done(ticket); }
  void progress() override { link_->progress(); }

 private:
  std::unique_ptr<comm::LinkReceiver> link_;
  milliseconds silence_;
  int messages_ = 0;
};

std::vector<std::string> choose_with_broken(int broken, milliseconds silence,
                                            milliseconds watchdog) {
  return on_threads(
      3, 1,
      [&](comm::Endpoint& endpoint) {
        if (endpoint.control->member() == broken) {
          endpoint.previous =
              std::make_unique<BrokenReceiver>(std::move(endpoint.previous), silence);
        }
        const auto idle = model::make_idle_stage(kRowBytes);
        agree_on_slots(endpoint, *idle, cut_of(3, 1), kSequences);
      },
      watchdog);
}

TEST(RoundTrip, AStageThatDiesIsNamedByTheOthers) {
  for (const int broken : {1, 2}) {
    const auto failures = choose_with_broken(broken, milliseconds(0), std::chrono::seconds(20));
    EXPECT_EQ(failures[static_cast<std::size_t>(broken)], "the fake link broke");
    // The first of the others hears of it, and then leaves, too.
    const int other = 3 - broken;
    EXPECT_THAT(failures[0], StartsWith("measuring the trip through the pipeline: "));
    EXPECT_THAT(failures[static_cast<std::size_t>(other)],
                StartsWith("measuring the trip through the pipeline: "));
    EXPECT_THAT(failures[0] + failures[static_cast<std::size_t>(other)],
                HasSubstr("thread " + std::to_string(broken)));
  }
}

TEST(RoundTrip, AStageThatFallsSilentIsNamedByTheDriver) {
  const auto failures = choose_with_broken(1, milliseconds(3000), milliseconds(1000));
  EXPECT_THAT(failures[0],
              ContainsRegex("^measuring the trip through the pipeline: stage 0: no tokens of step "
                            "4 \\(slot 0\\) from thread 2 for [1-9][0-9]*\\.[0-9] s; thread 1 is "
                            "silent: last heard of it [0-9.]+ s ago"));
}

}  // namespace
}  // namespace penstock::jobs
