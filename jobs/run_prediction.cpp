#include "jobs/run_prediction.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "jobs/report.hpp"

namespace penstock::jobs {
namespace {

constexpr std::size_t kMostLengths = 65536;
// Some seconds of replay.
constexpr double kAffordableWork = 1e7;

}  // namespace

std::optional<Work> LengthRecorder::next() {
  std::optional<Work> work = workload_.next();
  if (work && !work->prompt.empty()) {
    const std::size_t known = work->prompt.size() + work->generated.size();
    under_way_[work->record] = {begun_++, {static_cast<std::uint32_t>(known), 0, work->max_tokens}};
  }
  return work;
}

bool LengthRecorder::accept(std::uint64_t record, std::int32_t token) {
  const bool complete = workload_.accept(record, token);
  const auto entry = under_way_.find(record);
  if (entry == under_way_.end()) return complete;
  ++entry->second.lengths.answer_tokens;
  if (!complete) return false;
  ++finished_;
  if (entry->second.begun % every_ == 0) noted_.push_back(entry->second);
  under_way_.erase(entry);
  if (noted_.size() == kMostLengths) {
    every_ *= 2;
    std::erase_if(noted_, [&](const Begun& begun) { return begun.begun % every_ != 0; });
  }
  return true;
}

void LengthRecorder::reject(std::uint64_t record, const std::string& reason) {
  under_way_.erase(record);
  workload_.reject(record, reason);
}

std::vector<ReplayRecord> LengthRecorder::lengths() const {
  std::vector<Begun> sorted = noted_;
  std::sort(sorted.begin(), sorted.end(),
            [](const Begun& a, const Begun& b) { return a.begun < b.begun; });
  std::vector<ReplayRecord> lengths;
  lengths.reserve(sorted.size());
  for (const Begun& record : sorted) lengths.push_back(record.lengths);
  return lengths;
}

std::optional<Prediction> predict_run(const StageSetup& setup, const PipelineChoice& choice,
                                      const LengthRecorder& recorder) {
  if (!setup.cut.in_seconds || recorder.finished() == 0 || !recorder.all_finished()) {
    return std::nullopt;
  }
  // Between real ranks messages take a trip's time, where that was measured; it is taken to be the
  // same on all edges.
  LinkModel edge;
  if (setup.cut.ranges.size() > 1) {
    edge.latency_seconds = setup.trip_seconds / static_cast<double>(setup.cut.ranges.size() - 1);
  }
  ReplayPipeline pipeline{{},
                          choice.machine ? choice.machine->control : LinkModel{},
                          static_cast<double>(setup.stage->activation_row_bytes()),
                          {setup.options.slots, setup.options.max_step_tokens,
                           setup.options.max_sequences, setup.options.kv_blocks},
                          setup.cost};
  for (std::size_t i = 0; i < setup.cut.costs.size(); ++i) {
    const auto rank = static_cast<int>(i);
    pipeline.stages.push_back(
        {setup.cut.costs[i], choice.machine ? choice.machine->edge(rank, rank + 1) : edge});
  }
  const std::vector<ReplayRecord> lengths = recorder.lengths();
  const bool are_all = lengths.size() == recorder.finished();
  return predict(pipeline, {lengths, are_all}, {recorder.finished()}, kAffordableWork).front();
}

std::string format_predicted_run(const Prediction& prediction, double measured_seconds) {
  return fmt::format(
      "predicted {}, measured {} ({:+.1f} %){}\n", format_duration(prediction.seconds),
      format_duration(measured_seconds), 100 * (measured_seconds / prediction.seconds - 1),
      prediction.is_sample
          ? fmt::format(", by a sample of {} records", format_grouped(prediction.replayed_records))
          : "");
}

}  // namespace penstock::jobs
