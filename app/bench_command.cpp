#include <fmt/format.h>

#include "app/commands.hpp"
#include "app/options.hpp"
#include "app/pipeline_options.hpp"
#include "jobs/bench.hpp"
#include "jobs/calibrate.hpp"

namespace penstock::app {
namespace {

std::uint32_t tokens(const po::variables_map& values, const char* name) {
  const auto value = values[name].as<std::int64_t>();
  if (value < 2 || value > 1 << 24) {
    throw jobs::UsageError(fmt::format("--{} {} is out of range: give 2 or more", name, value));
  }
  return static_cast<std::uint32_t>(value);
}

}  // namespace

int bench_command(Invocation& invocation) {
  OptionParser parser(
      "penstock bench CKPT [options]",
      "Measures tokens per second of the layout it is started on (mpirun -n N, or one process),\n"
      "as shares of what this machine's arithmetic and memory allow, and where each stage's time\n"
      "goes in steady decode.\n",
      {"CKPT"});
  auto group = parser.group("Measurement");
  group("batch", po::value<std::string>()->default_value("1,8,32"), "sequences at a time");
  group("prompt", po::value<std::int64_t>()->default_value(128), "tokens of each prompt");
  group("generate", po::value<std::int64_t>()->default_value(128), "tokens of each answer");
  group("steady", flag(),
        "instead of batches, records without end, as many at once as fit: tokens per second in "
        "steady state, beside what the busiest stage allows");
  group("json", flag(), "machine-readable");
  group("calibrate", flag(),
        "measure instead what embedding, layers and head take on each kind of machine that takes "
        "part, and keep it in CKPT.calibration.json, by which run and bench then cut the stages");
  add_pipeline_options(parser, Replicas::one);
  po::variables_map values;
  jobs::BenchOptions options;
  bool calibrate = false;
  const auto read = [&] {
    if (!parser.parse(invocation.arguments, values)) return false;
    options.pipeline = pipeline_choice(values);
    options.batches = parse_counts("--batch", values["batch"].as<std::string>());
    options.prompt_tokens = tokens(values, "prompt");
    options.generated_tokens = tokens(values, "generate");
    options.steady = is_on(values, "steady");
    options.json = is_on(values, "json");
    calibrate = is_on(values, "calibrate");
    options.version = version();
    return true;
  };
  if (!read_on_all_ranks(invocation, options.pipeline, read)) return 0;
  return calibrate ? jobs::run_calibrate(**invocation.world, options)
                   : jobs::run_bench(**invocation.world, options);
}

}  // namespace penstock::app
