#pragma once

#include <future>
#include <optional>
#include <string>
#include <vector>

#include "io/journal_scan.hpp"
#include "jobs/drivers.hpp"
#include "jobs/job_clock.hpp"
#include "jobs/job_folder.hpp"
#include "jobs/job_input.hpp"
#include "jobs/replica_job.hpp"
#include "jobs/replica_share.hpp"
#include "jobs/run.hpp"
#include "jobs/stage_setup.hpp"
#include "jobs/stay_alive.hpp"

namespace penstock::jobs {

// What the first replica's driver does for all of them: from opening the files, before any weights
// are read, so that a wrong path costs no time, to merging the answers. One job may take many runs
// of the program; this is one of them. Used by the driver's thread.
class GenerateJob {
 public:
  // Before anything else is opened. Throws UsageError.
  static void check_input(const RunOptions& options);

  // Throws UsageError and io::FileError for what is wrong with the files, and for a job in O.job
  // that has other parameters. `own` is this driver's own part of the work. All must outlive the
  // job.
  GenerateJob(const RunOptions& options, ReplicaJob& own, Drivers& drivers, Alive alive);

  // All records were answered by earlier runs: no stage is needed to conclude().
  bool is_complete() const { return !before_.is_null() && finished_.size() == records(); }

  // The steps that the stages are to be cut for.
  model::StepShape expected_step() const;
  // Whether tokens are drawn at random where a record does not say.
  bool draws_tokens() const { return own_.context().defaults.sampling.temperature > 0; }

  // Loading may take minutes; users want to see that it moves.
  void loading(std::uint64_t done, std::uint64_t total);

  // From here on there is something to lose. Begins the own part and tells the other drivers
  // theirs. Throws io::FileError for a numeric class other than that of the runs before.
  void begin(const StageSetup& setup);

  // Waits for the other drivers and puts everything on disk; if all records have their rows, merges
  // them into the output. Returns the exit code.
  int finish(const PipelineTotals& totals);
  // The same for a job that is_complete().
  int conclude();

  // The run ends by an exception; what is finished goes to the disk, as well as that allows. The
  // state says `broken` unless `restart_helps`.
  void fail(bool restart_helps) noexcept;

 private:
  void open_folder_and_input(const Alive& moved);
  void go_on(int replicas);
  std::uint64_t records() const { return input_->description().range.size(); }
  std::uint64_t finished_before() const { return finished_.size(); }
  ReplicaStatus sum() const;  // of all replicas, as far as is known
  JobCounts counts() const;
  ProgressCounts progress_counts() const;
  std::string reason() const;
  void tell(std::string_view text) const;

  void before_step();
  void keep_state();
  void wait_for_state();  // until it is written; throws what that threw

  int merge(const Alive& moved);
  int say_what_is_left(Ledger::Time now);
  RunHeader header(const StageSetup& setup) const;
  RunSummary summary(Ledger::Time now) const;
  std::vector<StageLedger> ledgers() const;
  std::size_t slowest() const;
  void write_ledger(Ledger::Time now) const;
  void print_failures() const;

  const RunOptions& options_;
  ReplicaJob& own_;
  Drivers& drivers_;
  Alive alive_;
  ProgressMode progress_mode_;
  std::optional<JobFolder> folder_;
  nlohmann::json before_;  // the manifest of a job that goes on, else null
  nlohmann::json manifest_;
  std::optional<JobInput> input_;
  io::RecordSet finished_;            // by earlier runs
  EarlierWork earlier_;               // until it is split
  std::vector<ReplicaShare> shares_;  // until they are sent
  std::size_t begun_before_ = 0;
  std::optional<Progress> progress_;
  std::optional<DrainClock> clock_;  // until the own part takes it
  std::vector<StageReport> stages_;  // of all replicas
  std::optional<StageCut> cut_;
  std::uint32_t slots_ = 0;
  std::string rehearsal_;  // what of; empty for a real run
  Ledger::Time started_{};
  Ledger::Time next_loading_{};
  Ledger::Time next_state_{};
  std::future<void> state_written_;  // on a thread of its own: it costs a sync
  double load_seconds_ = 0;
  double start_seconds_ = 0;
};

}  // namespace penstock::jobs
