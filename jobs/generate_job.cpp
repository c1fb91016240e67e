#include "jobs/generate_job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <future>
#include <system_error>

#include "io/error.hpp"
#include "jobs/launch.hpp"
#include "jobs/manifest.hpp"
#include "jobs/stage_context.hpp"
#include "jobs/terminal.hpp"

namespace penstock::jobs {
namespace {

namespace fs = std::filesystem;

// How often the counts go to the state, which costs a sync.
constexpr std::chrono::seconds kStateInterval{5};
constexpr std::chrono::seconds kLoadingInterval{10};
// From here on reading the journal and the merge take seconds.
constexpr std::uint64_t kManyRecords = 1'000'000;

// Neither --fresh nor the answers may replace it.
void refuse_output_that_is(const std::string& output, std::string_view what,
                           const std::string& path) {
  std::error_code error;  // one of them is not there: two files
  if (fs::equivalent(output, path, error)) {
    throw UsageError(fmt::format("--output {} is the {} itself; name another file", output, what));
  }
  const fs::path folder = fs::absolute(path, error).parent_path();
  if (fs::equivalent(output + ".job", folder, error)) {
    throw UsageError(
        fmt::format("the {} {} lies in {}.job, which is for the job's own files; move it, or name "
                    "another --output",
                    what, path, output));
  }
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += "\n  " + line;
  return text;
}

void refuse_differences(const JobFolder& folder, const nlohmann::json& before,
                        const nlohmann::json& now) {
  const std::vector<std::string> lines = differences(before, now);
  if (lines.empty()) return;
  throw io::FileError(folder.path(),
                      fmt::format("the job was begun with something else, so it cannot go on:{}\n"
                                  "give the same again, or start over with --fresh",
                                  joined(lines)));
}

std::string numeric_class(const StageSetup& setup) {
  return fmt::format("{} {} kv-{}", setup.stage->numeric_class(), io::to_string(setup.dtype),
                     io::to_string(setup.kv_dtype));
}

// Whether the state says that the output is written. One that cannot be read says nothing.
bool says_done(const JobFolder& folder) {
  try {
    const nlohmann::json state = folder.read_json("state");
    const auto word = state.find("state");
    return word != state.end() &&
           (*word == to_string(JobState::done) || *word == to_string(JobState::errors));
  } catch (const io::FileError&) {
    return false;
  }
}

// What earlier runs finished, and what of it counts as failed.
EarlierWork read_journals(const std::vector<std::string>& journals, const RecordRange& range,
                          std::int64_t vocab_size, io::RecordSet& finished, const Alive& alive) {
  EarlierWork earlier;
  io::JournalScan scan =
      io::scan_journals(journals, range.first, range.end, [&](std::string_view row) {
        ++(is_error_row(row) ? earlier.failed : earlier.answered);
        alive(1);
      });
  finished = std::move(scan.finished);
  // Ids that no model gave would be read as rows of the embedding.
  std::erase_if(scan.partial, [&](const auto& entry) {
    return std::any_of(entry.second.begin(), entry.second.end(),
                       [&](std::int32_t id) { return id >= vocab_size; });
  });
  earlier.partial = std::move(scan.partial);
  earlier.damaged_lines = scan.damaged_lines;
  return earlier;
}

}  // namespace

void GenerateJob::check_input(const RunOptions& options) {
  const std::string& input = options.input.path;
  if (input != "-" && !fs::exists(input)) {
    throw UsageError(input + ": there is no such input file");
  }
}

GenerateJob::GenerateJob(const RunOptions& options, ReplicaJob& own, Drivers& drivers, Alive alive)
    : options_(options),
      own_(own),
      drivers_(drivers),
      alive_(std::move(alive)),
      progress_mode_(options.quiet ? ProgressMode::none
                                   : resolve(options.progress, is_terminal())) {
  refuse_output_that_is(options.output, "input", options.input.path);
  refuse_output_that_is(options.output, "checkpoint", options.pipeline.checkpoint);
  stay_alive(alive_, [&](const Alive& moved) { open_folder_and_input(moved); });
  const RequestContext& context = own_.context();
  manifest_ = to_manifest(options.version, options.pipeline.checkpoint, own_.checkpoint().digest(),
                          input_->description(), context.defaults, context.context_limit);
  // The numeric class tells as well, but only where there is something left to compute.
  manifest_["rehearsed"] = options.pipeline.machine ? options.pipeline.machine->device.name : "";
  const RecordRange range = input_->description().range;
  finished_ = io::RecordSet(range.first, range.end);
  if (before_.is_null()) return;
  // Known only when the stages are loaded.
  manifest_["numeric_class"] = before_.value("numeric_class", nlohmann::json());
  refuse_differences(*folder_, before_, manifest_);
  earlier_ = read_journals(folder_->journals(), range, context.vocab_size, finished_, alive_);
  begun_before_ = earlier_.partial.size();
  if (earlier_.damaged_lines > 0) {
    tell(fmt::format("{}: {} damaged rows in its journals; their records are answered again\n",
                     folder_->path(), earlier_.damaged_lines));
  }
  if (folder_->has_output() && !is_complete()) {
    throw io::FileError(options.output,
                        "is there, but its job is not finished: move it away, or start over with "
                        "--fresh");
  }
}

void GenerateJob::open_folder_and_input(const Alive& moved) {
  clock_.emplace(make_drain_clock(options_.time_limit, options_.drain_margin, options_.started));
  folder_.emplace(options_.output, options_.fresh,
                  [this](std::string_view line) { tell(std::string(line) + "\n"); });
  if (folder_->resumes()) before_ = folder_->read_json("manifest.json");
  input_.emplace(
      options_.input, *folder_, before_.is_null() ? nullptr : &before_,
      [this](std::string_view text) { tell(text); }, moved);
}

// Takes over the folder and gives each replica its share.
void GenerateJob::go_on(int replicas) {
  folder_->begin();
  folder_->write_json("manifest.json", manifest_);
  const ManifestInput& input = input_->description();
  shares_ = split_job(input.range, finished_, std::move(earlier_), replicas);
  for (std::size_t i = 1; i < shares_.size(); ++i) {
    GenerateCounts& counts = drivers_.statuses()[i].counts;  // until it tells its own
    for (const auto& [record, tokens] : shares_[i].earlier.partial) {
      counts.partial_tokens += tokens.size();
    }
  }
  own_.begin(input_->records(), input.format, std::move(shares_[0]), journal_of(folder_->path(), 0),
             *std::move(clock_),
             {[this] { before_step(); }, [this](std::string_view text) { tell(text); }});
  folder_->write_state(JobState::running, counts());
}

void GenerateJob::begin(const StageSetup& setup) {
  manifest_["numeric_class"] = numeric_class(setup);
  if (!before_.is_null()) refuse_differences(*folder_, before_, manifest_);
  stay_alive(alive_, [this](const Alive&) { go_on(drivers_.replicas()); });
  for (int replica = 1; replica < drivers_.replicas(); ++replica) {
    const ManifestInput& input = input_->description();
    drivers_.send_share(replica, {std::move(shares_[static_cast<std::size_t>(replica)]),
                                  input.index_xxh3, input.format, manifest_.at("parameters")});
  }
  shares_.clear();
  stages_ = setup.reports;
  cut_ = setup.cut;
  slots_ = setup.options.slots;
  rehearsal_ = setup.rehearsal;
  for (const std::string& warning : setup.warnings) tell("warning: " + warning + "\n");
  if (!options_.quiet) {
    print(format_header(header(setup), terminal_width()));
    if (options_.verbose) print(format_reads(stages_, setup.checkpoint.size_bytes()));
  }
  started_ = steady_now();
  load_seconds_ = setup.load_seconds;
  start_seconds_ = process_age_seconds();
  progress_.emplace(
      progress_mode_, started_, [](std::string_view text) { print(text); }, terminal_width);
}

void GenerateJob::loading(std::uint64_t done, std::uint64_t total) {
  const Ledger::Time now = steady_now();
  if (progress_mode_ == ProgressMode::none || now < next_loading_) return;
  if (next_loading_ != Ledger::Time{}) {
    print(fmt::format("loading stage 0: {} of {}\n", format_bytes(done), format_bytes(total)));
  }
  next_loading_ = now + kLoadingInterval;
}

void GenerateJob::before_step() {
  if (folder_->lost()) {
    own_.abandon();
    throw io::FileError(folder_->path(),
                        "was taken over by another job while this one was stopped; it writes "
                        "nothing more");
  }
  keep_state();
}

void GenerateJob::keep_state() {
  const Ledger::Time now = steady_now();
  if (progress_->due(now)) progress_->update(progress_counts(), now);
  if (now < next_state_) return;
  next_state_ = now + kStateInterval;
  using namespace std::chrono_literals;
  if (state_written_.valid() && state_written_.wait_for(0s) != std::future_status::ready) return;
  wait_for_state();
  state_written_ = std::async(std::launch::async,
                              [this, c = counts()] { folder_->write_state(JobState::running, c); });
}

void GenerateJob::wait_for_state() {
  if (state_written_.valid()) state_written_.get();
}

int GenerateJob::finish(const PipelineTotals& totals) {
  // At once: others may still work for long, and may fail.
  stay_alive(alive_, [this](const Alive&) { own_.finish(); });
  drivers_.wait_for_others([this] { before_step(); });
  const Ledger::Time now = steady_now();
  drivers_.statuses()[0] = own_.last_status(totals);
  progress_->finish(progress_counts(), now);
  int code = 0;
  stay_alive(alive_, [&](const Alive& moved) {
    wait_for_state();
    write_ledger(now);
    if (counts().left == 0) {
      code = merge(moved);
    } else {
      folder_->write_state(JobState::again, counts());
    }
  });
  if (!options_.quiet) print(format_summary(summary(now), terminal_width()));
  if (counts().left > 0) return say_what_is_left(now);
  print_failures();
  return code;
}

int GenerateJob::conclude() {
  const bool was_done = says_done(*folder_);
  stay_alive(alive_, [this](const Alive&) { go_on(1); });
  const bool failed = counts().failed > 0;
  const bool written = was_done && folder_->has_output();
  const std::string done = records() == 0
                               ? "there are no records"
                               : fmt::format("all {} records were answered by an earlier run",
                                             format_grouped(records()));
  tell(done + (written ? ": nothing to do\n" : fmt::format(": writing {}\n", options_.output)));
  if (written) {
    folder_->write_state(failed ? JobState::errors : JobState::done, counts());
    return failed ? 2 : 0;
  }
  int code = 0;
  stay_alive(alive_, [&](const Alive& moved) { code = merge(moved); });
  print_failures();
  return code;
}

int GenerateJob::merge(const Alive& moved) {
  input_->check_unchanged();
  if (progress_mode_ != ProgressMode::none && records() >= kManyRecords) {
    print(fmt::format("merging {} rows\n", format_grouped(records())));
  }
  if (!folder_->has_output() && fs::exists(options_.output)) {
    throw io::FileError(
        options_.output,
        "was made by somebody else while the job ran; move it away and run the same "
        "command again");
  }
  const RecordRange range = input_->description().range;
  io::merge_journals(
      folder_->journals(), range.first, range.end, options_.output, folder_->path(),
      [&moved](std::uint64_t) { moved(1); }, [this] { folder_->check_lock(); });
  const bool failed = counts().failed > 0;
  folder_->write_state(failed ? JobState::errors : JobState::done, counts());
  return failed ? 2 : 0;
}

int GenerateJob::say_what_is_left(Ledger::Time now) {
  const JobCounts c = counts();
  const std::uint64_t finished = c.finished + c.failed - finished_before();
  std::string text = fmt::format("stopped early ({}): {} of {} records are left", reason(),
                                 format_grouped(c.left), format_grouped(records()));
  if (finished > 0) {
    const double seconds = std::chrono::duration<double>(now - started_).count();
    const std::uint64_t runs = (c.left + finished - 1) / finished;
    text += fmt::format(", about {} more run{} like this one ({})", format_grouped(runs),
                        runs == 1 ? "" : "s", format_duration(seconds));
  } else {
    text += fmt::format("; none was finished in this run, {} tokens of answers under way are kept",
                        format_grouped(c.partial_tokens));
  }
  tell(text + (options_.fresh ? "\nrun the same command again, without --fresh, to go on\n"
                              : "\nrun the same command again to go on\n"));
  return 75;
}

void GenerateJob::fail(bool restart_helps) noexcept {
  if (!own_.has_begun() || folder_->lost()) return;
  // The first cause is what the user needs to hear. A full disk may still take the small file.
  try {
    own_.sync();
  } catch (...) {
  }
  own_.abandon();  // nothing may come behind the lock's release
  try {
    wait_for_state();
  } catch (...) {
  }
  try {
    folder_->write_state(restart_helps ? JobState::running : JobState::broken, counts());
  } catch (...) {
  }
}

void GenerateJob::tell(std::string_view text) const {
  if (!options_.quiet) print(text);
}

// Why it stopped early: the replicas' clocks may differ.
std::string GenerateJob::reason() const {
  for (const ReplicaStatus& status : drivers_.statuses()) {
    if (!status.reason.empty()) return status.reason;
  }
  return "";
}

ReplicaStatus GenerateJob::sum() const {
  ReplicaStatus sum = own_.status();
  sum.totals = drivers_.statuses()[0].totals;
  for (std::size_t i = 1; i < drivers_.statuses().size(); ++i) {
    const ReplicaStatus& status = drivers_.statuses()[i];
    sum.counts.answered += status.counts.answered;
    sum.counts.failed += status.counts.failed;
    sum.counts.partial_tokens += status.counts.partial_tokens;
    sum.tokens_in += status.tokens_in;
    sum.tokens_out += status.tokens_out;
    sum.totals += status.totals;
    sum.busy.insert(sum.busy.end(), status.busy.begin(), status.busy.end());
  }
  return sum;
}

JobCounts GenerateJob::counts() const {
  const GenerateCounts c = sum().counts;
  return {c.answered, c.failed, records() - c.answered - c.failed, c.partial_tokens};
}

ProgressCounts GenerateJob::progress_counts() const {
  const ReplicaStatus all = sum();
  return {all.counts.answered + all.counts.failed,
          all.counts.failed,
          records(),
          all.tokens_in,
          all.tokens_out,
          all.busy,
          finished_before()};
}

}  // namespace penstock::jobs
