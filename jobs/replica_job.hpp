#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint.hpp"
#include "io/journal.hpp"
#include "jobs/dataset.hpp"
#include "jobs/drivers.hpp"
#include "jobs/generate_workload.hpp"
#include "jobs/job_clock.hpp"
#include "jobs/replica_share.hpp"
#include "jobs/request_tools.hpp"
#include "jobs/run.hpp"
#include "jobs/stay_alive.hpp"

namespace penstock::jobs {

// What every replica's driver does in a run: reads the records of its share, journals their answers
// in a file of its own, and stops in time. Used by the driver's thread.
class ReplicaJob {
 public:
  // Opens the checkpoint, before any weights are read. Throws io::FileError and UsageError. The
  // arguments must outlive the job.
  ReplicaJob(const RunOptions& options, Drivers& drivers);

  const RequestContext& context() const { return tools_->context(); }
  const io::CheckpointReader& checkpoint() const { return *checkpoint_; }  // until it is taken
  io::CheckpointReader take_checkpoint() { return std::move(*checkpoint_); }

  // What the job around it has to do with each step, and with what is to be said; may be empty.
  struct Hooks {
    std::function<void()> before_step;
    std::function<void(std::string_view text)> tell;
  };
  // `input` must outlive the job. `journal`: file.
  void begin(const io::IndexedInput& input, io::InputFormat format, ReplicaShare share,
             const std::string& journal, DrainClock clock, Hooks hooks);
  // The same for a replica other than the first, which waits for its share and opens the files of
  // the job that the first has begun. Throws io::FileError, also when they are not to be seen here.
  void join(const Alive& alive);

  // What the pipeline has room for decides about the order of the records.
  void set_room(const PipelineOptions& pipeline);
  Workload& workload() { return *workload_; }
  const GenerateWorkload& answers() const { return *workload_; }
  bool has_begun() const { return workload_.has_value(); }

  // Has what is finished written at once; any thread, once it has begun.
  void hurry() noexcept { journal_->hurry(); }
  // Writes nothing more: the files are another job's.
  void abandon() noexcept {
    if (journal_) journal_->abandon();
  }
  // What is finished is on disk when it returns.
  void sync() {
    if (journal_) journal_->sync();
  }
  // Puts all there is on disk and closes the journal, so that other hosts see it whole.
  void finish();

  // As things stand; `totals` for the last time.
  ReplicaStatus status() const;
  ReplicaStatus last_status(const PipelineTotals& totals) const;
  const DrainClock& clock() const { return *clock_; }

 private:
  Pace pace(const std::function<double()>& needed_seconds);
  void tell_drain(Pace pace);
  void tell_status();
  void require_parameters(const nlohmann::json& theirs) const;

  const RunOptions& options_;
  Drivers& drivers_;
  std::optional<io::CheckpointReader> checkpoint_;
  std::optional<RequestTools> tools_;
  Hooks hooks_;
  std::optional<io::IndexedInput> joined_input_;  // of a replica other than the first
  io::RecordSet finished_;                        // by earlier runs
  std::optional<Dataset> dataset_;
  std::optional<io::JournalWriter> journal_;
  std::optional<GenerateWorkload> workload_;
  std::optional<DrainClock> clock_;
  Pace told_pace_ = Pace::admit;
  bool partial_kept_ = false;  // since a signal that may be followed by the end
  std::vector<double> busy_;
  Ledger::Time next_status_{};
};

// "O.job/journal-0003.jsonl": the journal of a replica.
std::string journal_of(const std::string& job_folder, int replica);

}  // namespace penstock::jobs
