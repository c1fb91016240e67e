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
  h.context_limit = context_.context_limit;
  h.kv_tokens = std::uint64_t{setup.options.kv_blocks} * model::kKvBlockTokens;
  h.stages = setup.reports;
  h.more.emplace_back("stages", "cut " + setup.cut.source);
  if (!setup.rehearsal.empty()) {
    h.more.emplace_back("REHEARSAL",
                        "of " + setup.rehearsal + ": answers are made up, times are predictions");
  }
  h.more.emplace_back("sampling", describe(context_.defaults));
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
  if (const auto& end = clock_->end()) {
    const double seconds = std::chrono::duration<double>(end->end - Clock::now()).count();
    h.more.emplace_back(
        "time left", fmt::format("{} ({})", format_duration(std::max(0.0, seconds)), end->source));
  }
  if (!setup.device.note.empty()) h.more.emplace_back("GPU", setup.device.note);
  for (const std::string& edge : setup.links.edges) h.more.emplace_back("link", edge);
  return h;
}

// Of a long job, whose answers are as long as they may be. Text has some four bytes a token.
model::StepShape GenerateJob::expected_step() const {
  constexpr std::uint64_t kSequences = 64;  // of a slot
  constexpr double kBytesPerToken = 4;
  const ManifestInput& input = input_->description();
  const double longest = context_.context_limit;
  const double bytes = static_cast<double>(input.fingerprint.size_bytes) /
                       static_cast<double>(std::max<std::uint64_t>(input.records, 1));
  const double answer = std::min<double>(context_.defaults.max_tokens, longest);
  const double prompt = std::min(bytes / kBytesPerToken, longest);
  return model::steady_step(kSequences, prompt, answer);
}

  void GenerateJob::write_ledger(const PipelineTotals& totals, Ledger::Time now) const {
    const GenerateCounts& c = workload_->counts();
    PipelineLedger run{{}, slots_, totals.steps};
    nlohmann::json stages = nlohmann::json::array();
    for (std::size_t i = 0; i < totals.stages.size(); ++i) {
      run.stages.push_back(totals.stages[i].totals);
      const StageReport& report = stages_[i];
      nlohmann::json stage = totals.stages[i].totals;
      stage["waiting"] = totals.stages[i].totals.waiting();
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
    const Advice advice = advise(run);
    folder_->write_json(
        "ledger.json",
        {{"version", options_.version},
         {"rehearsal", rehearsal_},  // of what; empty: it was a real run
         {"finished_before", finished_before()},
         {"answered", c.answered},  // of the job, all its runs so far
         {"failed", c.failed},
         {"tokens_in", workload_->tokens_in()},  // of this run, as all that follows
         {"tokens_out", workload_->tokens_out()},
         {"load_seconds", load_seconds_},
         {"work_seconds", std::chrono::duration<double>(now - started_).count()},
         {"pipeline_seconds", totals.seconds},
         {"slots", slots_},
         {"steps", totals.steps},
         {"prompt_tokens", totals.prompt_tokens},  // evictions' repeats included
         {"generated_tokens", totals.generated_tokens},
         {"evictions", totals.evictions},
         {"least_bubble", least_bubble(run.stages.size(), run.slots, run.steps)},
         {"advice",
          {{"cause", to_string(advice.cause)}, {"part", advice.part}, {"text", advice.text}}},
         {"stages", stages}});
  }

  RunSummary GenerateJob::summary(const PipelineTotals& totals, Ledger::Time now) const {
    const JobCounts c = counts();
    RunSummary s;
    s.records_answered = c.finished;
    s.records_failed = c.failed;
    s.tokens_in = workload_->tokens_in();
    s.tokens_out = workload_->tokens_out();
    const double real_seconds = std::chrono::duration<double>(now - started_).count();
    s.seconds = rehearsal_.empty() ? real_seconds : totals.seconds;
    s.rehearsal = rehearsal_;
    s.rehearsed_in = real_seconds;
    s.load_seconds = load_seconds_;
    s.output = options_.output;
    std::vector<LedgerTotals> ledgers;
    s.slots = slots_;
    s.steps = totals.steps;
    for (std::size_t i = 0; i < totals.stages.size(); ++i) {
      const int stage = static_cast<int>(i);
      s.stages.push_back({stage, stage, totals.stages[i].totals});
      ledgers.push_back(totals.stages[i].totals);
    }
    s.step = step_times(*cut_, ledgers, totals.work, totals.steps);
    return s;
  }

  void GenerateJob::print_failures() const {
    if (counts().failed == 0) return;
    const auto& shown = workload_->failures();
    for (const std::string& failure : shown) print("error row: " + failure + "\n");
    const std::uint64_t rest = counts().failed - shown.size();
    if (rest > 0) {
      print(fmt::format("{} more error rows in {}\n", format_grouped(rest), options_.output));
    }
  }

}  // namespace penstock::jobs
