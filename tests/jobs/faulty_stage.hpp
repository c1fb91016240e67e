#pragma once

#include <chrono>
#include <functional>
#include <string_view>
#include <thread>
#include <utility>

#include "tests/jobs/fake_pipeline.hpp"

namespace penstock::jobs {

// What goes wrong in a stage, from a step on.
enum class Fault {
  none,
  stuck,  // computes for ever, and calls nobody
  still,  // alive, but its GPU's work does not end
  slow,   // a step takes `time`, layer by layer
};

class FaultyStage : public FakeStage {
 public:
  // `time`: how long a stuck stage stays so, or what a slow step takes.
  FaultyStage(int stage, int stages, Fault fault, std::uint64_t step,
              std::chrono::milliseconds time)
      : FakeStage(stage, stages), fault_(fault), step_(step), time_(time) {}

  void forward(const model::StepPlan& plan, std::span<const std::byte> in, std::span<std::byte> out,
               const std::function<void()>& progress) override {
    FakeStage::forward(plan, in, out, progress);
    reached_ = reached_ || plan.step == step_;
    if (!reached_ || over_) return;
    if (fault_ == Fault::stuck) {
      over_ = true;
      std::this_thread::sleep_for(time_);
    }
    if (fault_ == Fault::slow) {
      over_ = true;
      const auto end = std::chrono::steady_clock::now() + time_;
      while (std::chrono::steady_clock::now() < end) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        progress();
      }
    }
  }
  bool ready() override { return fault_ != Fault::still || !reached_; }

 private:
  Fault fault_;
  std::uint64_t step_;
  std::chrono::milliseconds time_;
  bool reached_ = false;
  bool over_ = false;
};

}  // namespace penstock::jobs
