#include "jobs/replica_job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "io/error.hpp"
#include "io/input_fingerprint.hpp"
#include "jobs/launch.hpp"
#include "jobs/manifest.hpp"
#include "jobs/stage_context.hpp"

namespace penstock::jobs {
namespace {

using namespace std::chrono_literals;

// How often the first driver hears of the others.
constexpr std::chrono::milliseconds kStatusInterval{500};
// A network file system may show a file on other hosts only after its caches are over.
constexpr std::chrono::seconds kFilesAppear{90};

// The index that replica 0's driver has just put into the job's folder, maybe on another host,
// where an older one may have been before.
io::IndexedInput open_index(const std::string& input, const std::string& index,
                            const std::string& index_xxh3) {
  const auto end = std::chrono::steady_clock::now() + kFilesAppear;
  for (;;) {
    const bool late = std::chrono::steady_clock::now() >= end;
    try {
      if (io::hash_of_file(index) == index_xxh3) return {input, index};
      if (late) {
        throw io::FileError(index,
                            "is not the one that replica 0's driver made; the output must be on a "
                            "file system that all nodes share");
      }
    } catch (const io::FileError&) {
      if (late) throw;
    }
    std::this_thread::sleep_for(100ms);
  }
}

}  // namespace

std::string journal_of(const std::string& job_folder, int replica) {
  return fmt::format("{}/journal-{:04}.jsonl", job_folder, replica);
}

ReplicaJob::ReplicaJob(const RunOptions& options, Drivers& drivers)
    : options_(options), drivers_(drivers) {
  checkpoint_.emplace(options.pipeline.checkpoint);
  const auto config = model::from_attributes(checkpoint_->header().config);
  tools_.emplace(*checkpoint_, options.pipeline.checkpoint, config, options.generation,
                 context_limit(config, options.pipeline));
}

void ReplicaJob::begin(const io::IndexedInput& input, io::InputFormat format, ReplicaShare share,
                       const std::string& journal, DrainClock clock, Hooks hooks) {
  hooks_ = std::move(hooks);
  clock_.emplace(std::move(clock));
  finished_ = std::move(share.finished);
  dataset_.emplace(input, format, tools_->builder(), share.range, finished_);
  journal_.emplace(journal);
  workload_.emplace(
      *dataset_, tools_->tokenizer(), *journal_, std::move(share.earlier),
      GenerateHooks{[this](const std::vector<double>& busy) { busy_ = busy; },
                    [this](const std::function<double()>& needed) { return pace(needed); },
                    [this](StopRequest request) { drivers_.take_request(request); },
                    [this] { drivers_.poll(); }});
}

void ReplicaJob::set_room(const PipelineOptions& pipeline) {
  const std::uint64_t sequences = std::min(pipeline.max_sequences, pipeline.max_step_tokens);
  dataset_->set_room({sequences * pipeline.slots, sequences * (pipeline.slots + 1),
                      std::uint64_t{pipeline.kv_blocks} * model::kKvBlockTokens});
}

void ReplicaJob::join(const Alive& alive) {
  ShareMessage message = drivers_.receive_share();
  require_parameters(message.parameters);
  const std::string folder = options_.output + ".job";
  const std::string& input = options_.input.path;
  stay_alive(alive, [&](const Alive&) {
    joined_input_.emplace(open_index(input == "-" ? folder + "/input" : input, folder + "/index",
                                     message.index_xxh3));
    begin(*joined_input_, message.format, std::move(message.share),
          journal_of(folder, drivers_.replica()),
          make_drain_clock(options_.time_limit, options_.drain_margin, options_.started), {});
  });
}

// Option files may differ from host to host.
void ReplicaJob::require_parameters(const nlohmann::json& theirs) const {
  const nlohmann::json mine = to_manifest(options_.version, options_.pipeline.checkpoint, "", {},
                                          context().defaults, context().context_limit);
  const std::vector<std::string> lines =
      differences({{"parameters", theirs}}, {{"parameters", mine.at("parameters")}});
  if (lines.empty()) return;
  throw UsageError(
      fmt::format("{} (on replica 0 and here): give all ranks the same options", lines[0]));
}

Pace ReplicaJob::pace(const std::function<double()>& needed_seconds) {
  drivers_.poll();
  if (hooks_.before_step) hooks_.before_step();
  tell_status();
  const StopRequest request = drivers_.request();
  if (request == StopRequest::none && !clock_->end()) return Pace::admit;
  if (request >= StopRequest::terminate && !partial_kept_) {
    partial_kept_ = true;  // the end may come at any moment
    workload_->journal_partial();
    journal_->hurry();
  }
  // What records need in a rehearsal is not the time that limits are about.
  const bool rehearsed = options_.pipeline.machine && !options_.pipeline.realtime;
  const std::chrono::duration<double> needed(rehearsed ? 0.0 : needed_seconds());
  const Pace now = clock_->pace(Clock::now(), request,
                                std::chrono::duration_cast<std::chrono::nanoseconds>(needed));
  if (now > told_pace_) tell_drain(now);
  told_pace_ = std::max(told_pace_, now);
  return now;
}

void ReplicaJob::tell_drain(Pace pace) {
  if (!hooks_.tell) return;
  switch (pace) {
    case Pace::admit:
      break;
    case Pace::drain:
      hooks_.tell(
          fmt::format("{}: no more records are begun; those under way go on while there is time\n",
                      clock_->reason()));
      break;
    case Pace::stop:
      hooks_.tell(fmt::format("{}: answers under way are kept as they are\n", clock_->reason()));
      break;
  }
}

void ReplicaJob::tell_status() {
  const Ledger::Time now = steady_now();
  if (drivers_.is_first() || now < next_status_) return;
  next_status_ = now + kStatusInterval;
  drivers_.tell(status());
}

ReplicaStatus ReplicaJob::status() const {
  ReplicaStatus status;
  status.counts = workload_->counts();
  status.tokens_in = workload_->tokens_in();
  status.tokens_out = workload_->tokens_out();
  status.busy = busy_;
  return status;
}

ReplicaStatus ReplicaJob::last_status(const PipelineTotals& totals) const {
  ReplicaStatus last = status();
  last.done = true;
  last.reason = clock_->reason();
  last.failures = workload_->failures();
  last.totals = totals;
  return last;
}

void ReplicaJob::finish() {
  workload_->journal_partial();
  journal_->sync();
  journal_.reset();
}

}  // namespace penstock::jobs
