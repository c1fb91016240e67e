#include <fmt/format.h>

#include <charconv>
#include <csignal>
#include <stdexcept>

#include "app/commands.hpp"
#include "app/dataset_options.hpp"
#include "app/options.hpp"
#include "app/pipeline_options.hpp"
#include "jobs/run.hpp"

namespace penstock::app {
namespace {

void add_generation_options(OptionParser& parser) {
  auto group = parser.group("Answers (a record's own fields of the same names win)");
  group("max-tokens", po::value<std::int64_t>(), "tokens of an answer at most (default 256)");
  group("temperature", po::value<double>(), "0: greedy (default: the checkpoint's, else 0)");
  group("top-k", po::value<std::int64_t>(),
        "choose among the k most probable; 0: all (default: the checkpoint's, else 0)");
  group("top-p", po::value<double>(),
        "choose among the most probable that sum to p (default: the checkpoint's, else 1: all)");
  group("min-p", po::value<double>(),
        "leave out what is less probable than p times the best (default: the checkpoint's, else "
        "0: nothing)");
  group("repetition-penalty", po::value<double>(),
        "above 1: fewer tokens of prompt and answer (default: the checkpoint's, else 1)");
  group("presence-penalty", po::value<double>(), "above 0: fewer tokens of the answer (default 0)");
  group("frequency-penalty", po::value<double>(),
        "the same for each time a token was used (default 0)");
  group("seed", po::value<std::string>(), "of all random choices (default 0)");
  group("stop", po::value<std::vector<std::string>>()->composing(),
        "end the answer before this text; may be given several times (default: none)");
  group("ignore-eos", flag(), "do not stop at the end-of-sequence token");
}

jobs::GenerationOptions generation_options(const po::variables_map& values) {
  jobs::GenerationOptions g;
  g.max_tokens = given<std::int64_t>(values, "max-tokens");
  g.temperature = given<double>(values, "temperature");
  g.top_k = given<std::int64_t>(values, "top-k");
  g.top_p = given<double>(values, "top-p");
  g.min_p = given<double>(values, "min-p");
  g.repetition_penalty = given<double>(values, "repetition-penalty");
  g.presence_penalty = given<double>(values, "presence-penalty");
  g.frequency_penalty = given<double>(values, "frequency-penalty");
  g.seed = parse_unsigned(values, "seed");
  g.stop = given<std::vector<std::string>>(values, "stop").value_or(std::vector<std::string>());
  if (is_on(values, "ignore-eos")) g.ignore_eos = true;
  return g;
}

std::string required(const po::variables_map& values, const char* name, const char* meaning) {
  std::string value = given<std::string>(values, name).value_or("");
  if (value.empty()) throw jobs::UsageError(fmt::format("--{} is missing: {}", name, meaning));
  return value;
}

std::optional<std::chrono::milliseconds> duration(const po::variables_map& values,
                                                  const char* name) {
  const auto text = given<std::string>(values, name);
  if (!text) return std::nullopt;
  try {
    return jobs::parse_duration(*text);
  } catch (const std::invalid_argument& error) {
    throw jobs::UsageError(fmt::format("--{} {}", name, error.what()));
  }
}

// "3/8"
void read_part(const std::string& text, jobs::InputOptions& input) {
  const char* const end = text.data() + text.size();
  const auto part = std::from_chars(text.data(), end, input.part);
  const bool has_slash = part.ec == std::errc() && part.ptr != end && *part.ptr == '/';
  const auto parts = has_slash ? std::from_chars(part.ptr + 1, end, input.parts) : part;
  if (!has_slash || parts.ec != std::errc() || parts.ptr != end || input.part == 0 ||
      input.part > input.parts) {
    throw jobs::UsageError(
        fmt::format("--part '{}': give I/N with I from 1 to N, for example 3/8", text));
  }
}

jobs::RunOptions run_options(const po::variables_map& values) {
  if (values["task"].as<std::string>() != "generate") {
    throw jobs::UsageError(
        fmt::format("--task '{}' is not known: generate", values["task"].as<std::string>()));
  }
  jobs::RunOptions options;
  options.pipeline = pipeline_choice(values);
  options.input.path = required(values, "input", "the file of records, or - for standard input");
  options.output = required(values, "output", "the file for the answers");
  options.input.format = parse_input_format(values["input-format"].as<std::string>());
  options.generation = generation_options(values);
  options.input.limit = parse_unsigned(values, "limit").value_or(UINT64_MAX);
  options.input.verify = is_on(values, "verify-input");
  if (const auto part = given<std::string>(values, "part")) read_part(*part, options.input);
  options.fresh = is_on(values, "fresh");
  options.time_limit = duration(values, "time-limit");
  options.drain_margin = duration(values, "drain-margin").value_or(options.drain_margin);
  const auto progress = jobs::parse_progress_mode(values["progress"].as<std::string>());
  if (!progress) {
    throw jobs::UsageError(fmt::format("--progress '{}' is not known: auto, bar, lines, none",
                                       values["progress"].as<std::string>()));
  }
  options.progress = *progress;
  options.quiet = is_on(values, "quiet");
  options.verbose = is_on(values, "verbose");
  options.version = version();
  return options;
}

}  // namespace

int run_command(Invocation& invocation) {
  OptionParser parser(
      "penstock run CKPT --input D --output O [options]",
      "Answers every record of D and writes the answers to O, in the order of the input. Started\n"
      "by mpirun or srun, each rank holds one stage of the model; alone, one process holds all.\n"
      "More ranks than --stages are replicas that share the records.\n\n"
      "D   JSONL: {\"prompt\": \"…\"}, {\"messages\": [{\"role\": \"user\", \"content\": \"…\"}]} "
      "or\n    {\"tokens\": [1, 2, 3]}, with an optional \"id\" and any of the answer options as\n"
      "    fields; or plain text, a prompt a line. .jsonl, .ndjson and .json are JSONL, .txt is\n"
      "    text; of other files, and of standard input (-), the first lines tell, or "
      "--input-format\n"
      "O   JSONL: {\"id\", \"index\", \"text\", \"finish_reason\", \"usage\"}; O.job/ beside it "
      "holds\n    what the job needs while it runs\n\n"
      "A run that was stopped or killed goes on when the same command is given again, on any "
      "number\n"
      "of ranks. SIGUSR1, SIGUSR2, SIGTERM and SIGINT, to mpirun or to any rank, stop it in an "
      "orderly\n"
      "way; O.job/state says what became of it.\n",
      {"CKPT"});
  auto job = parser.group("Job");
  job("task", po::value<std::string>()->default_value("generate"), "what to do: generate");
  job("input", po::value<std::string>()->value_name("D"), "the dataset");
  job("input-format", po::value<std::string>()->default_value("auto"), "of D: jsonl, text, auto");
  job("output", po::value<std::string>()->value_name("O"), "the answers");
  job("limit", po::value<std::string>()->value_name("N"), "only the first N records");
  job("part", po::value<std::string>()->value_name("I/N"),
      "only the I-th of N equal shares of the records, for N jobs with an output each, which "
      "joined "
      "are the output of one job");
  job("fresh", flag(),
      "remove an earlier output and its job folder, and start over (not in a command that is to be "
      "repeated)");
  job("verify-input", flag(),
      "when the job goes on, compare all of D, not only its size, time, beginning and end");
  job("time-limit", po::value<std::string>()->value_name("T"),
      "stop in time before T is over, as 90m, 1:30:00, 2-00:00:00 or seconds (default: the end of "
      "the Slurm job, if it is one)");
  job("drain-margin", po::value<std::string>()->value_name("T"),
      "time before the end when all must be on disk, and time to finish answers after a signal "
      "where no end is known (default 60 s; of a time limit at most a tenth)");
  job("progress", po::value<std::string>()->default_value("auto"), "auto, bar, lines, none");
  job("quiet", flag(), "only errors");
  job("verbose", flag(), "also how many bytes of the checkpoint each rank read");
  add_generation_options(parser);
  add_pipeline_options(parser, Replicas::any);
  po::variables_map values;
  jobs::RunOptions options;
  const auto read = [&] {
    if (!parser.parse(invocation.arguments, values)) return false;
    options = run_options(values);
    return true;
  };
  // Before MPI starts, which may take its time. A closed terminal or a limit on the size of files
  // must not end a job without a word.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  jobs::StopSignals signals;
  if (!read_on_all_ranks(invocation, options.pipeline, read)) return 0;
  return jobs::run_generate(**invocation.world, options, signals);
}

}  // namespace penstock::app
