#pragma once

#include <future>
#include <optional>
#include <string>
#include <vector>

#include "io/journal.hpp"
#include "io/journal_scan.hpp"
#include "jobs/dataset.hpp"
#include "jobs/generate_workload.hpp"
#include "jobs/job_clock.hpp"
#include "jobs/job_folder.hpp"
#include "jobs/job_input.hpp"
#include "jobs/run.hpp"
#include "jobs/stage_setup.hpp"
#include "jobs/stay_alive.hpp"
#include "jobs/stop_signals.hpp"
#include "model/text/chat_template.hpp"
#include "model/text/tokenizer.hpp"

namespace penstock::jobs {

// The driver's side of penstock run: from opening the files, before any weights are read, so that a
// wrong path costs no time, to merging the answers. One job may take many runs of the program; this
// is one of them. Used by the driver's thread.
class GenerateJob {
 public:
  // Throws UsageError and io::FileError for what is wrong with the files, and for a job in O.job
  // that has other parameters. `options` and `signals` must outlive the job.
  GenerateJob(const RunOptions& options, const StopSignals& signals, Alive alive);

  // All records were answered by earlier runs: no stage is needed to conclude().
  bool is_complete() const { return !before_.is_null() && finished_.size() == records(); }

  // The steps that the stages are to be cut for.
  model::StepShape expected_step() const;

  io::CheckpointReader take_checkpoint() { return std::move(*checkpoint_); }
  // Loading may take minutes; users want to see that it moves.
  void loading(std::uint64_t done, std::uint64_t total);

  // From here on there is something to lose. Throws io::FileError for a numeric class other than
  // that of the runs before.
  void begin(const StageSetup& setup);
  Workload& workload() { return *workload_; }
  // Has what is finished written at once; any thread, after begin().
  void hurry() noexcept { journal_->hurry(); }

  // Puts everything on disk; if all records have their rows, merges them into the output. Returns
  // the exit code.
  int finish(const PipelineTotals& totals);
  // The same for a job that is_complete().
  int conclude();

  // The run ends by an exception; what is finished goes to the disk, as well as that allows. The
  // state says `broken` unless `restart_helps`.
  void fail(bool restart_helps) noexcept;

 private:
  void open_folder_and_input(const Alive& moved);
  void go_on();
  std::uint64_t records() const { return input_->description().range.size(); }
  std::uint64_t finished_before() const { return finished_.size(); }
  std::string journal() const { return folder_->file("journal-0000.jsonl"); }
  JobCounts counts() const;
  ProgressCounts progress_counts() const;
  void tell(std::string_view text) const;

  Pace pace(const std::function<double()>& needed_seconds);
  void tell_drain(Pace pace);
  void step_done(const std::vector<double>& busy);
  void keep_state();
  void wait_for_state();  // until it is written; throws what that threw

  int merge(const Alive& moved);
  int say_what_is_left(Ledger::Time now);
  RunHeader header(const StageSetup& setup) const;
  RunSummary summary(const PipelineTotals& totals, Ledger::Time now) const;
  void write_ledger(const PipelineTotals& totals, Ledger::Time now) const;
  void print_failures() const;

  const RunOptions& options_;
  const StopSignals& signals_;
  Alive alive_;
  ProgressMode progress_mode_;
  std::optional<io::CheckpointReader> checkpoint_;  // until the stage takes it
  std::optional<model::Tokenizer> tokenizer_;
  std::optional<model::ChatTemplate> chat_template_;
  RequestContext context_;
  std::optional<JobFolder> folder_;
  nlohmann::json before_;  // the manifest of a job that goes on, else null
  nlohmann::json manifest_;
  std::optional<JobInput> input_;
  io::RecordSet finished_;  // by earlier runs
  EarlierWork earlier_;     // until the workload takes it
  std::size_t begun_before_ = 0;
  std::optional<RequestBuilder> builder_;
  std::optional<Dataset> dataset_;
  std::optional<io::JournalWriter> journal_;
  std::optional<Progress> progress_;
  std::optional<GenerateWorkload> workload_;
  std::optional<DrainClock> clock_;
  StopRequest requested_ = StopRequest::none;  // by other stages
  Pace told_pace_ = Pace::admit;
  bool partial_kept_ = false;  // since a signal that may be followed by the end
  std::vector<StageReport> stages_;
  std::optional<StageCut> cut_;
  std::uint32_t slots_ = 0;
  std::string rehearsal_;  // what of; empty for a real run
  std::vector<double> busy_;
  Ledger::Time started_{};
  Ledger::Time next_loading_{};
  Ledger::Time next_state_{};
  std::future<void> state_written_;  // on a thread of its own: it costs a sync
  double load_seconds_ = 0;
};

}  // namespace penstock::jobs
