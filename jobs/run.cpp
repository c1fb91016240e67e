#include "jobs/run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>

#include "io/error.hpp"
#include "io/input_index.hpp"
#include "io/journal.hpp"
#include "jobs/dataset.hpp"
#include "jobs/generate_workload.hpp"
#include "jobs/job_folder.hpp"
#include "jobs/report.hpp"
#include "jobs/stage_context.hpp"
#include "jobs/terminal.hpp"
#include "model/error.hpp"
#include "model/text/tokenizer_files.hpp"

namespace penstock::jobs {
namespace {

// How often finished rows go to the journal, and the counts to the state, which costs a sync.
constexpr std::chrono::seconds kFlushInterval{1};
constexpr std::chrono::seconds kStateInterval{5};
constexpr std::chrono::seconds kLoadingInterval{10};
// From here on the merge takes seconds.
constexpr std::uint64_t kManyRecords = 1'000'000;

// What the driver's side of a job is made of: opened in this order, before any weights are read,
// so that a wrong path costs no time.
class DriverJob {
 public:
  explicit DriverJob(const RunOptions& options)
      : options_(options),
        progress_mode_(options.quiet ? ProgressMode::none
                                     : resolve(options.progress, is_terminal())) {
    if (options.input != "-" && !std::filesystem::exists(options.input)) {
      throw UsageError(options.input + ": there is no such input file");
    }
    checkpoint_.emplace(options.pipeline.checkpoint);
    const io::CheckpointReader& checkpoint = *checkpoint_;
    const auto config = model::from_attributes(checkpoint.header().config);
    const auto files = model::from_blobs(checkpoint.header().tokenizer);
    try {
      tokenizer_.emplace(model::Tokenizer::from_json(files.tokenizer_json));
    } catch (const model::ModelError& error) {
      throw io::FileError(options.pipeline.checkpoint, error.what());
    }
    chat_template_.emplace(files.chat_template);
    context_.tokenizer = &*tokenizer_;
    context_.chat_template = &*chat_template_;
    context_.vocab_size = config.vocab_size;
    context_.eos_token_ids = eos_token_ids(config, files.generation_config);
    context_.defaults =
        default_params(files.generation_config, options.generation, config.vocab_size);
    context_.context_limit = context_limit(config, options.pipeline);

    refuse_output_that_is("input", options.input);
    refuse_output_that_is("checkpoint", options.pipeline.checkpoint);
    folder_.emplace(options.output, options.fresh);
    std::string input = options.input;
    if (input == "-") {
      input = folder_->file("input");
      io::spool_standard_input(input, options.limit);
    }
    io::build_index(input, folder_->file("index"), options.limit);
    format_ = options.format
                  ? *options.format
                  : io::detect_format(input, options.input == "-" ? "standard input" : input);
    input_.emplace(input, folder_->file("index"));
    builder_.emplace(context_);
    dataset_.emplace(*input_, format_, *builder_);
    journal_.emplace(folder_->file(kJournal));
  }

  void begin(const StageSetup& setup) {
    folder_->begin();
    write_manifest(setup);
    folder_->write_state(JobState::running, counts());
    stages_ = setup.reports;
    if (!options_.quiet) {
      for (const std::string& warning : setup.warnings) print("warning: " + warning + "\n");
      print(format_header(header(setup), terminal_width()));
      if (options_.verbose) print(format_reads(stages_, setup.checkpoint.size_bytes()));
    }
    started_ = steady_now();
    load_seconds_ = setup.load_seconds;
    progress_.emplace(
        progress_mode_, started_, [](std::string_view text) { print(text); }, terminal_width);
    workload_.emplace(
        *dataset_, *tokenizer_, *journal_,
        [this](const GenerateCounts&, const std::vector<double>& busy) { step_done(busy); });
  }

  io::CheckpointReader take_checkpoint() { return std::move(*checkpoint_); }
  Workload& workload() { return *workload_; }

  // Loading may take minutes; users want to see that it moves.
  void loading(std::uint64_t done, std::uint64_t total) {
    const Ledger::Time now = steady_now();
    if (progress_mode_ == ProgressMode::none || now < next_loading_) return;
    if (next_loading_ != Ledger::Time{}) {
      print(fmt::format("loading stage 0: {} of {}\n", format_bytes(done), format_bytes(total)));
    }
    next_loading_ = now + kLoadingInterval;
  }

  // The run ends by an exception: the state says so, as well as the disk allows.
  void fail() noexcept {
    // The first cause is what the user needs to hear. A full disk may still take the small file.
    try {
      journal_->flush();
    } catch (...) {
    }
    try {
      folder_->write_state(JobState::broken, counts());
    } catch (...) {
    }
  }

  // Merges the journal into the output. Returns the exit code.
  int finish(const PipelineTotals& totals) {
    const Ledger::Time now = steady_now();
    progress_->finish(progress_counts(busy_), now);
    journal_->sync();
    if (progress_mode_ != ProgressMode::none && dataset_->size() >= kManyRecords) {
      print(fmt::format("merging {} rows\n", format_grouped(dataset_->size())));
    }
    io::merge_journals({folder_->file(kJournal)}, dataset_->size(), options_.output,
                       folder_->path());
    const bool failed = workload_->counts().failed > 0;
    folder_->write_json("ledger.json", ledger(totals));
    folder_->write_state(failed ? JobState::errors : JobState::done, counts());
    if (!options_.quiet) print(format_summary(summary(totals, now), terminal_width()));
    if (failed) print_failures();
    return failed ? 2 : 0;
  }

 private:
  static constexpr const char* kJournal = "journal-0000.jsonl";

  // --fresh would remove it.
  void refuse_output_that_is(std::string_view what, const std::string& path) const {
    namespace fs = std::filesystem;
    std::error_code error;  // one of them is not there: two files
    if (fs::equivalent(options_.output, path, error)) {
      throw UsageError(
          fmt::format("--output {} is the {} itself; name another file", options_.output, what));
    }
    const fs::path folder = fs::absolute(path, error).parent_path();
    if (fs::equivalent(options_.output + ".job", folder, error)) {
      throw UsageError(
          fmt::format("the {} {} lies in {}.job, which this run would remove; move "
                      "it, or name another --output",
                      what, path, options_.output));
    }
  }

  JobCounts counts() const {
    if (!workload_) return {0, 0, dataset_->size()};
    const GenerateCounts& c = workload_->counts();
    return {c.answered, c.failed, dataset_->size() - c.answered - c.failed};
  }

  ProgressCounts progress_counts(const std::vector<double>& busy) const {
    const GenerateCounts& c = workload_->counts();
    return {c.answered + c.failed, c.failed, dataset_->size(), c.tokens_in, c.tokens_out, busy};
  }

  void step_done(const std::vector<double>& busy) {
    const Ledger::Time now = steady_now();
    if (progress_->due(now)) progress_->update(progress_counts(busy), now);
    busy_ = busy;
    if (now >= next_flush_) {
      next_flush_ = now + kFlushInterval;
      journal_->flush();
    }
    if (now < next_state_) return;
    next_state_ = now + kStateInterval;
    folder_->write_state(JobState::running, counts());
  }

  void write_manifest(const StageSetup& setup) const {
    const GenerationParams& p = context_.defaults;
    folder_->write_json(
        "manifest.json",
        {{"schema", 1},
         {"version", options_.version},
         {"task", "generate"},
         {"checkpoint",
          {{"path", options_.pipeline.checkpoint}, {"digest", setup.checkpoint.digest()}}},
         {"input",
          {{"path", options_.input},
           {"format", io::to_string(format_)},
           {"records", dataset_->size()}}},
         {"numeric_class", numeric_class(setup)},
         {"parameters",
          {{"temperature", p.sampling.temperature},
           {"top_k", p.sampling.top_k},
           {"top_p", p.sampling.top_p},
           {"min_p", p.sampling.min_p},
           {"repetition_penalty", p.sampling.repetition_penalty},
           {"presence_penalty", p.sampling.presence_penalty},
           {"frequency_penalty", p.sampling.frequency_penalty},
           {"seed", p.sampling.seed},
           {"max_tokens", p.max_tokens},
           {"stop", p.stop},
           {"ignore_eos", p.ignore_eos},
           {"max_context", context_.context_limit}}}});
  }

  static std::string numeric_class(const StageSetup& setup) {
    return fmt::format("{} {} kv-{}", setup.stage->numeric_class(), io::to_string(setup.dtype),
                       io::to_string(setup.kv_dtype));
  }

  RunHeader header(const StageSetup& setup) const {
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
    h.input = options_.input;
    h.input_format = io::to_string(format_);
    h.records = dataset_->size();
    h.output = options_.output;
    h.slots = setup.options.slots;
    h.context_limit = context_.context_limit;
    h.kv_tokens = std::uint64_t{setup.options.kv_blocks} * model::kKvBlockTokens;
    h.stages = setup.reports;
    h.more.emplace_back("sampling", describe(context_.defaults));
    if (!setup.device.note.empty()) h.more.emplace_back("GPU", setup.device.note);
    for (const std::string& edge : setup.links.edges) h.more.emplace_back("link", edge);
    return h;
  }

  nlohmann::json ledger(const PipelineTotals& totals) const {
    nlohmann::json stages = nlohmann::json::array();
    for (std::size_t i = 0; i < totals.stages.size(); ++i) {
      nlohmann::json stage = totals.stages[i].totals;
      stage["bytes_read"] = stages_[i].bytes_read;
      stages.push_back(std::move(stage));
    }
    return {{"steps", totals.steps},
            {"prompt_tokens", totals.prompt_tokens},  // more than the records' after evictions
            {"generated_tokens", totals.generated_tokens},
            {"evictions", totals.evictions},
            {"stages", stages}};
  }

  RunSummary summary(const PipelineTotals& totals, Ledger::Time now) const {
    const GenerateCounts& c = workload_->counts();
    RunSummary s;
    s.records_answered = c.answered;
    s.records_failed = c.failed;
    s.tokens_in = c.tokens_in;
    s.tokens_out = c.tokens_out;
    s.seconds = std::chrono::duration<double>(now - started_).count();
    s.load_seconds = load_seconds_;
    s.output = options_.output;
    for (std::size_t i = 0; i < totals.stages.size(); ++i) {
      const int stage = static_cast<int>(i);
      s.stages.push_back({stage, stage, totals.stages[i].totals});
    }
    return s;
  }

  void print_failures() const {
    const auto& shown = workload_->failures();
    for (const std::string& failure : shown) print("error row: " + failure + "\n");
    const std::uint64_t rest = workload_->counts().failed - shown.size();
    if (rest > 0) {
      print(fmt::format("{} more error rows in {}\n", format_grouped(rest), options_.output));
    }
  }

  const RunOptions& options_;
  ProgressMode progress_mode_;
  std::optional<io::CheckpointReader> checkpoint_;  // until the stage takes it
  std::optional<model::Tokenizer> tokenizer_;
  std::optional<model::ChatTemplate> chat_template_;
  RequestContext context_;
  std::optional<JobFolder> folder_;
  io::InputFormat format_ = io::InputFormat::jsonl;
  std::optional<io::IndexedInput> input_;
  std::optional<RequestBuilder> builder_;
  std::optional<Dataset> dataset_;
  std::optional<io::JournalWriter> journal_;
  std::optional<Progress> progress_;
  std::optional<GenerateWorkload> workload_;
  std::vector<StageReport> stages_;
  std::vector<double> busy_;
  Ledger::Time started_{};
  Ledger::Time next_loading_{};
  Ledger::Time next_flush_{};
  Ledger::Time next_state_{};
  double load_seconds_ = 0;
};

}  // namespace

int run_generate(const comm::World& world, const RunOptions& options) {
  const Layout layout = choose_layout(world, options.pipeline.link, options.pipeline.stages);
  return run_stages(world, layout, [&](comm::Endpoint& endpoint) {
    const bool is_driver = endpoint.control->member() == 0;
    const StageDevice device =
        take_device(endpoint, options.pipeline.device, options.pipeline.link, layout);
    std::optional<DriverJob> job;
    agree_on(endpoint, "opening checkpoint, input and output", [&] {
      if (is_driver) job.emplace(options);
    });
    StageSetup setup =
        is_driver ? set_up_stage(
                        endpoint, world, layout, device, options.pipeline, job->take_checkpoint(),
                        [&](std::uint64_t done, std::uint64_t total) { job->loading(done, total); })
                  : set_up_stage(endpoint, world, layout, device, options.pipeline);
    agree_on(endpoint, "beginning the job", [&] {
      if (is_driver) job->begin(setup);
    });
    if (!is_driver) {
      run_stage(endpoint, *setup.stage, setup.options);
      return 0;
    }
    try {
      return job->finish(
          run_driver(endpoint, *setup.stage, setup.options, setup.cost, job->workload()));
    } catch (...) {
      job->fail();
      throw;
    }
  });
}

}  // namespace penstock::jobs
