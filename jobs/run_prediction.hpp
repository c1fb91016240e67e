#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "jobs/prediction.hpp"
#include "jobs/stage_setup.hpp"

// What a run should have taken, by what is known of its devices, beside what it took.
namespace penstock::jobs {

// Passes all on to another workload, and notes how long the records turn out. Memory: of at most
// 65536 records, evenly spread over those that were begun, and of those under way.
class LengthRecorder : public Workload {
 public:
  // `workload` must outlive this.
  explicit LengthRecorder(Workload& workload) : workload_(workload) {}

  void begin(std::function<Ledger::Time()> now) override { workload_.begin(std::move(now)); }
  std::optional<Work> next() override;
  bool accept(std::uint64_t record, std::int32_t token) override;
  void reject(std::uint64_t record, const std::string& reason) override;
  Pace pace(const std::function<double()>& needed_seconds) override {
    return workload_.pace(needed_seconds);
  }
  void stop_requested(StopRequest request) override { workload_.stop_requested(request); }
  bool mark_due() override { return workload_.mark_due(); }
  void poll() override { workload_.poll(); }
  void step_done(const std::vector<double>& busy) override { workload_.step_done(busy); }

  bool all_finished() const { return under_way_.empty(); }
  std::uint64_t finished() const { return finished_; }
  std::vector<ReplayRecord> lengths() const;  // in the order in which the run began them

 private:
  struct Begun {
    std::uint64_t begun = 0;  // records begun before
    ReplayRecord lengths;
  };
  Workload& workload_;
  std::unordered_map<std::uint64_t, Begun> under_way_;
  std::vector<Begun> noted_;
  std::uint64_t begun_ = 0;
  std::uint64_t finished_ = 0;
  std::uint64_t every_ = 1;  // of so many records begun one is noted
};

// Of the run's records, by replay. Empty where nothing tells seconds of these devices: no
// calibration, no description; and where no record was finished, or not all that were begun.
std::optional<Prediction> predict_run(const StageSetup& setup, const PipelineChoice& choice,
                                      const LengthRecorder& recorder);

// "predicted 12.3 s, measured 12.0 s (-2.4 %)\n"
std::string format_predicted_run(const Prediction& prediction, double measured_seconds);

}  // namespace penstock::jobs
