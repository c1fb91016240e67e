#include <fmt/format.h>

#include <iostream>

#include "app/commands.hpp"
#include "app/options.hpp"
#include "app/progress_line.hpp"
#include "io/checkpoint.hpp"
#include "jobs/terminal.hpp"
#include "model/convert/inspect.hpp"

namespace penstock::app {

int inspect_command(Invocation& invocation) {
  OptionParser parser("penstock inspect CKPT [options]",
                      "Shows what a checkpoint holds. Exit code 1 if --verify finds damage.\n",
                      {"CKPT"});
  auto group = parser.group("Inspection");
  group("tensors", flag(), "list every tensor");
  group("verify", flag(), "read all weights and compare every checksum");
  group("json", flag(), "machine-readable");
  po::variables_map values;
  if (!parser.parse(invocation.arguments, values)) return 0;

  const io::CheckpointReader checkpoint(values["CKPT"].as<std::string>());
  nlohmann::json description = model::describe_checkpoint(checkpoint);
  const bool verify = is_on(values, "verify");
  std::vector<std::string> damage;
  if (verify) {
    ProgressLine line("verifying");
    std::uint64_t total = 0;
    for (const io::TensorInfo& tensor : checkpoint.tensors()) total += tensor.size_bytes;
    damage = checkpoint.verify([&](std::uint64_t done) { line.update(done, total); });
  }
  if (is_on(values, "json")) {
    if (verify) description["damage"] = damage;
    std::cout << description.dump(2) << "\n";
  } else {
    std::cout << model::format_description(description, is_on(values, "tensors"));
    if (verify) {
      for (const std::string& line : damage) std::cout << "damaged: " << line << "\n";
      std::cout << (damage.empty() ? std::string("all checksums are right\n")
                                   : fmt::format("{} damaged blocks\n", damage.size()));
    }
  }
  return damage.empty() ? 0 : 1;
}

}  // namespace penstock::app
