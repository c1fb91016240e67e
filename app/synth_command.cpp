#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/commands.hpp"
#include "app/options.hpp"
#include "app/progress_line.hpp"
#include "model/convert/synth.hpp"

namespace penstock::app {

int synth_command(Invocation& invocation) {
  OptionParser parser("penstock synth SHAPE DST.h5 [options]",
                      fmt::format("Makes a checkpoint of random weights, for measurements and "
                                  "rehearsals. SHAPE is a config.json or\none of: {}.\n",
                                  fmt::join(model::synth_presets(), ", ")),
                      {"SHAPE", "DST"});
  auto group = parser.group("Synthesis");
  group("dtype", po::value<std::string>()->default_value("bf16"), "type of the matrices");
  group("seed", po::value<std::string>()->default_value("0"), "of the random weights");
  group("no-data", flag(), "write shapes only: a few kilobytes");
  group("tokenizer", po::value<std::string>()->value_name("FILE"),
        "take the tokenizer of a tokenizer.json, Hugging Face folder, GGUF file or checkpoint "
        "(default: one token a byte)");
  group("force", flag(), "replace DST.h5 if it is there already");
  po::variables_map values;
  if (!parser.parse(invocation.arguments, values)) return 0;
  model::SynthOptions options;
  options.dtype =
      parse_dtype_option("--dtype", values["dtype"].as<std::string>()).value_or(io::DType::bf16);
  options.seed = parse_unsigned(values, "seed").value_or(0);
  options.no_data = is_on(values, "no-data");
  options.tokenizer = given<std::string>(values, "tokenizer").value_or("");
  options.created_by = version();
  refuse_same_file(values["SHAPE"].as<std::string>(), values["DST"].as<std::string>());
  const std::string to = destination(values);
  ProgressLine line("writing");
  model::synthesize(values["SHAPE"].as<std::string>(), to, options,
                    [&](std::uint64_t done, std::uint64_t total) { line.update(done, total); });
  return 0;
}

}  // namespace penstock::app
