#include "jobs/round_trip.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "comm/error.hpp"
#include "jobs/pipeline.hpp"
#include "jobs/slots.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

// The first ones make connections and have buffers registered.
constexpr std::size_t kWarmUpTrips = 3;
constexpr std::size_t kTrips = 10;
static_assert(kWarmUpTrips + kTrips < model::kKvBlockTokens, "a sequence has one KV block");
// After which one trip behind the warm-up is enough.
constexpr std::chrono::seconds kEnoughTime{2};

// Sequences that decode until enough steps were seen. In a pipeline of one slot there is one step
// under way, and the time from one's end to the next one's is that of a trip.
class Trips : public Workload {
 public:
  // `alive` is called while the driver waits.
  Trips(std::uint32_t sequences, std::function<void()> alive)
      : sequences_(sequences), alive_(std::move(alive)) {}

  std::optional<Work> next() override {
    if (given_ == sequences_) return std::nullopt;
    Work work;
    work.record = given_++;
    work.prompt = {0};
    work.max_tokens = kWarmUpTrips + kTrips;
    return work;
  }
  bool accept(std::uint64_t /*record*/, std::int32_t /*token*/) override { return false; }
  void reject(std::uint64_t /*record*/, const std::string& reason) override {
    throw std::logic_error("a step to measure with was rejected: " + reason);
  }
  Pace pace(const std::function<double()>& /*needed_seconds*/) override {
    const bool enough =
        trips_.size() == kTrips || (!trips_.empty() && steady_now() - begin_ >= kEnoughTime);
    return enough ? Pace::stop : Pace::admit;
  }
  void poll() override { alive_(); }
  void step_done(const std::vector<double>& /*busy*/) override {
    const Ledger::Time now = steady_now();
    if (++steps_ > kWarmUpTrips) {
      trips_.push_back(std::chrono::duration<double>(now - last_).count());
    }
    last_ = now;
  }

  double median_seconds() {
    if (trips_.empty()) throw std::logic_error("the pipeline stopped before a trip was measured");
    const auto middle = trips_.begin() + static_cast<std::ptrdiff_t>(trips_.size() / 2);
    std::nth_element(trips_.begin(), middle, trips_.end());
    return *middle;
  }

 private:
  std::uint32_t sequences_;
  std::function<void()> alive_;
  std::uint32_t given_ = 0;
  Ledger::Time begin_ = steady_now();
  Ledger::Time last_{};
  std::size_t steps_ = 0;
  std::vector<double> trips_;  // seconds
};

}  // namespace

double measure_round_trip(comm::Endpoint& endpoint, model::Stage& idle, std::uint32_t sequences,
                          const model::StepCost& cost) {
  PipelineOptions options;
  options.max_step_tokens = sequences;
  options.max_sequences = sequences;
  options.kv_blocks = sequences;  // there is no memory behind them
  // The loops themselves beat for their own pipeline only.
  const auto alive = [&endpoint] {
    if (endpoint.everyone) endpoint.everyone->beat(1);
  };
  try {
    if (endpoint.control->member() > 0) {
      run_stage(endpoint, idle, options, nullptr, [&alive] {
        alive();
        return StopRequest::none;
      });
      return 0;
    }
    Trips trips(sequences, alive);
    run_driver(endpoint, idle, options, cost, trips);
    return trips.median_seconds();
  } catch (const comm::CommError& error) {
    throw comm::CommError(fmt::format("measuring the trip through the pipeline: {}", error.what()));
  }
}

SlotChoice agree_on_slots(comm::Endpoint& endpoint, model::Stage& idle, const StageCut& cut,
                          std::uint32_t sequences) {
  const double trip = measure_round_trip(endpoint, idle, sequences, cut.slowest());
  const std::vector<double> steps = cut.seconds(step_of_slots(sequences));
  const std::uint32_t mine =
      slots_for(cut.ranges.size(), trip, *std::max_element(steps.begin(), steps.end()));
  SlotChoice most;
  for (const std::string& text : endpoint.all().all_gather(
           json{mine, trip}.dump(), "the number of slots", endpoint.watchdog)) {
    const json theirs = json::parse(text);
    most.slots = std::max(most.slots, theirs.at(0).get<std::uint32_t>());
    most.trip_seconds = std::max(most.trip_seconds, theirs.at(1).get<double>());
  }
  return most;
}

}  // namespace penstock::jobs
