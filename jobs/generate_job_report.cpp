// What a job tells people before and after the work.
#include <fmt/format.h>

#include <algorithm>

#include "jobs/generate_job.hpp"
#include "jobs/ledger_advice.hpp"
#include "jobs/terminal.hpp"

namespace penstock::jobs {

RunHeader GenerateJob::header(const StageSetup& setup) const {
  const ManifestInput& input = input_->description();
  RunHeader h;
  h.version = options_.version;
  h.model = setup.checkpoint.header().source;
  h.architecture = setup.config.architecture;
  h.parameters = static_cast<std::uint64_t>(model::parameter_count(setup.config));
  h.dtype = fmt::format("{}, KV {}", io::to_string(setup.dtype), io::to_string(setup.kv_dtype));
  h.checkpoint = options_.pipeline.checkpoint;
  h.checkpoint_bytes = setup.checkpoint.size_bytes();
  h.checkpoint_digest = setup.checkpoint.digest();
  h.device = setup.stage->numeric_class();
  h.link = setup.links.name;
  h.input = options_.input.path;
  h.input_format = io::to_string(input.format);
  h.records = records();
  h.output = options_.output;
  h.slots = setup.options.slots;
  h.trip_seconds = setup.trip_seconds;
  h.context_limit = setup.context_limit;
  h.kv_tokens = std::uint64_t{setup.options.kv_blocks} * model::kKvBlockTokens;
  h.replicas = drivers_.replicas();
  h.stages = setup.reports;
  h.more.emplace_back("stages", "cut " + setup.cut.source);
  if (!setup.rehearsal.empty()) {
    h.more.emplace_back("REHEARSAL",
                        "of " + setup.rehearsal + ": answers are made up, times are predictions");
  }
  h.more.emplace_back("sampling", describe(own_.context().defaults));
  if (options_.input.parts > 1) {
    h.more.emplace_back("part", fmt::format("{} of {}: records {} to {} of {}", options_.input.part,
                                            options_.input.parts, input.range.first,
                                            input.range.end, input.records));
  }
  if (!before_.is_null()) {
    h.more.emplace_back(
        "goes on", fmt::format("{} records are finished, {} are begun",
                               format_grouped(finished_before()), format_grouped(begun_before_)));
  }
  if (const auto& end = own_.clock().end()) {
    const double seconds = std::chrono::duration<double>(end->end - Clock::now()).count();
    h.more.emplace_back(
        "time left", fmt::format("{} ({})", format_duration(std::max(0.0, seconds)), end->source));
  }
  if (!setup.device.note.empty()) h.more.emplace_back("GPU", setup.device.note);
  for (const std::string& edge : setup.links.edges) h.more.emplace_back("link", edge);
  return h;
}

// One list of all replicas' stages.
std::vector<StageLedger> GenerateJob::ledgers() const {
  std::vector<StageLedger> ledgers;
  for (const ReplicaStatus& status : drivers_.statuses()) {
    for (const StageTimes& stage : status.totals.stages) {
      const StageReport& report = stages_[ledgers.size()];
      ledgers.push_back({report.stage, report.rank, stage.totals, report.replica, stage.process});
    }
  }
  return ledgers;
}

// The replica that worked for longest, which decides when the job is done.
std::size_t GenerateJob::slowest() const {
  const auto& statuses = drivers_.statuses();
  const auto longest = std::max_element(statuses.begin(), statuses.end(),
                                        [](const ReplicaStatus& a, const ReplicaStatus& b) {
                                          return a.totals.seconds < b.totals.seconds;
                                        });
  return static_cast<std::size_t>(longest - statuses.begin());
}

// Of a long job, whose answers are as long as they may be. Text has some four bytes a token.
model::StepShape GenerateJob::expected_step() const {
  constexpr std::uint64_t kSequences = 64;  // of a slot
  constexpr double kBytesPerToken = 4;
  constexpr std::uint64_t kPlaces = 64;  // of the records that are looked at, evenly spread
  constexpr std::uint64_t kOfEach = 64;
  const RequestContext& context = own_.context();
  const double longest = context.context_limit;
  const RecordRange range = input_->description().range;
  const std::uint64_t records = range.end - range.first;
  double prompts = 0, answers = 0, seen = 0;
  for (std::uint64_t place = 0; place < kPlaces; ++place) {
    const std::uint64_t begin = range.first + records * place / kPlaces;
    const std::uint64_t end = range.first + records * (place + 1) / kPlaces;
    for (const io::IndexEntry& entry :
         input_->records().entries(begin, std::min(end - begin, kOfEach))) {
      const std::uint32_t most =
          entry.max_tokens > 0 ? entry.max_tokens : context.defaults.max_tokens;
      prompts += std::min(entry.length / kBytesPerToken, longest);
      answers += std::min<double>(most, longest);
      ++seen;
    }
  }
  if (seen == 0) return model::steady_step(kSequences, 1, 1);  // nothing to be fast for
  return model::steady_step(kSequences, prompts / seen, answers / seen);
}

void GenerateJob::write_ledger(Ledger::Time now) const {
  const ReplicaStatus all = sum();
  nlohmann::json replicas = nlohmann::json::array();
  for (const ReplicaStatus& status : drivers_.statuses()) {
    const PipelineTotals& totals = status.totals;
    nlohmann::json replica = StepCounts(totals);
    replica["pipeline_seconds"] = totals.seconds;
    replicas.push_back(std::move(replica));
  }
  nlohmann::json stages = nlohmann::json::array();
  for (const StageLedger& ledger : ledgers()) {
    const StageReport& report = stages_[stages.size()];
    nlohmann::json stage = ledger.totals;
    stage.update(ledger.process);
    stage["waiting"] = ledger.totals.waiting();
    stage["replica"] = report.replica;
    stage["rank"] = report.rank;
    stage["host"] = report.host;
    stage["layers"] = {report.layer_begin, report.layer_end};
    stage["threads"] = report.threads;
    stage["gpu"] = report.gpu;
    stage["weight_bytes"] = report.weight_bytes;
    stage["kv_bytes"] = report.kv_bytes;
    stage["bytes_read"] = report.bytes_read;
    stages.push_back(std::move(stage));
  }
  const double real_seconds = std::chrono::duration<double>(now - started_).count();
  const PipelineTotals& longest = drivers_.statuses()[slowest()].totals;
  PipelineLedger run{{}, slots_, longest.steps, !rehearsal_.empty()};
  for (const StageTimes& stage : longest.stages) run.stages.push_back(stage.totals);
  const Advice advice = advise(run);
  nlohmann::json json = {
      {"version", options_.version},
      {"rehearsal", rehearsal_},  // of what; empty: it was a real run
      {"finished_before", finished_before()},
      {"answered", all.counts.answered},  // of the job, all its runs so far
      {"failed", all.counts.failed},
      {"tokens_in", all.tokens_in},  // of this run, as all that follows
      {"tokens_out", all.tokens_out},
      {"start_seconds", start_seconds_},
      {"load_seconds", load_seconds_},
      {"work_seconds", rehearsal_.empty() ? real_seconds : longest.seconds},
      {"pipeline_seconds", longest.seconds},  // of the replica that took longest
      {"slots", slots_},
      {"least_bubble", least_bubble(run.stages.size(), run.slots, run.steps)},
      {"advice",
       {{"cause", to_string(advice.cause)}, {"part", advice.part}, {"text", advice.text}}},
      {"replicas", replicas},
      {"stages", stages}};
  json.update(StepCounts(all.totals));
  folder_->write_json("ledger.json", json);
}

RunSummary GenerateJob::summary(Ledger::Time now) const {
  const ReplicaStatus all = sum();
  RunSummary s;
  s.records_answered = all.counts.answered;
  s.records_failed = all.counts.failed;
  s.tokens_in = all.tokens_in;
  s.tokens_out = all.tokens_out;
  const double real_seconds = std::chrono::duration<double>(now - started_).count();
  const std::size_t slowest_replica = slowest();
  const PipelineTotals& longest = drivers_.statuses()[slowest_replica].totals;
  s.slowest_replica = static_cast<int>(slowest_replica);
  s.seconds = rehearsal_.empty() ? real_seconds : longest.seconds;
  s.rehearsal = rehearsal_;
  s.rehearsed_in = real_seconds;
  s.start_seconds = start_seconds_;
  s.load_seconds = load_seconds_;
  s.output = options_.output;
  s.slots = slots_;
  s.steps = longest.steps;
  s.stages = ledgers();
  if (all.totals.steps > 0) {
    for (const StageLedger& stage : s.stages)
      s.thread_seconds_per_step += stage.process.thread_seconds;
    const auto stages = static_cast<double>(s.stages.size()) / drivers_.replicas();
    s.thread_seconds_per_step /= stages * static_cast<double>(all.totals.steps);
  }
  const PipelineTotals& own = drivers_.statuses()[0].totals;  // of the replica whose cut is known
  std::vector<LedgerTotals> own_stages;
  for (const StageTimes& stage : own.stages) own_stages.push_back(stage.totals);
  s.step = step_times(*cut_, own_stages, own.shapes.values(), own.steps);
  if (drivers_.replicas() == 1) return s;
  for (const ReplicaStatus& status : drivers_.statuses()) {
    s.replica_seconds.push_back(status.totals.seconds);
  }
  return s;
}

void GenerateJob::print_failures() const {
  if (counts().failed == 0) return;
  constexpr std::size_t kShown = 5;
  std::uint64_t shown = 0;
  for (const ReplicaStatus& status : drivers_.statuses()) {
    for (const std::string& failure : status.failures) {
      if (shown == kShown) break;
      print("error row: " + failure + "\n");
      ++shown;
    }
  }
  const std::uint64_t rest = counts().failed - shown;
  if (rest > 0) {
    print(fmt::format("{} more error rows in {}\n", format_grouped(rest), options_.output));
  }
}

}  // namespace penstock::jobs
