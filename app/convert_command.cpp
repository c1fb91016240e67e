#include "app/commands.hpp"
#include "app/options.hpp"
#include "app/progress_line.hpp"
#include "model/convert/convert.hpp"

namespace penstock::app {

int convert_command(Invocation& invocation) {
  OptionParser parser(
      "penstock convert SRC DST.h5 [options]",
      "Makes a checkpoint (HDF5) from SRC: a Hugging Face folder (config.json, safetensors,\n"
      "tokenizer.json) or a GGUF file. Nothing stands under DST.h5 until it is complete.\n",
      {"SRC", "DST"});
  auto group = parser.group("Conversion");
  group("dtype", po::value<std::string>()->default_value("auto"),
        "type of the matrices: auto (the source's; bf16 for a quantized one), f32, f16, bf16");
  group("force", flag(), "replace DST.h5 if it is there already");
  po::variables_map values;
  if (!parser.parse(invocation.arguments, values)) return 0;
  model::ConvertOptions options;
  options.dtype = parse_dtype_option("--dtype", values["dtype"].as<std::string>());
  options.created_by = version();
  refuse_same_file(values["SRC"].as<std::string>(), values["DST"].as<std::string>());
  const std::string to = destination(values);
  ProgressLine line("converting");
  model::convert_model(values["SRC"].as<std::string>(), to, options,
                       [&](std::uint64_t done, std::uint64_t total) { line.update(done, total); });
  return 0;
}

}  // namespace penstock::app
