#include <fmt/format.h>

#include <array>
#include <exception>
#include <iostream>
#include <string_view>

#include "app/commands.hpp"
#include "comm/error.hpp"
#include "jobs/launch.hpp"

namespace {

using namespace penstock;

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(app::Invocation&);
};

constexpr std::array kCommands = {
    Command{"convert", "make a checkpoint from a Hugging Face folder or a GGUF file",
            app::convert_command},
    Command{"synth", "make a checkpoint of random weights for a model's shape", app::synth_command},
    Command{"inspect", "show what a checkpoint holds; --verify checks every byte",
            app::inspect_command},
    Command{"tokenize", "turn lines of text into token ids, and back", app::tokenize_command},
    Command{"run", "answer every record of a dataset", app::run_command},
    Command{"bench", "measure tokens per second against this machine's limits", app::bench_command},
};

void print_help() {
  std::cout << app::version()
            << ": runs a large language model over a dataset, offline, on a cluster\n\n"
               "usage: penstock COMMAND …      penstock COMMAND --help\n\n";
  for (const Command& command : kCommands) {
    std::cout << fmt::format("  {:<10}{}\n", command.name, command.summary);
  }
  std::cout <<
      R"(
A first run:
  penstock convert SmolLM2-135M-Instruct/ model.h5
  mpirun -n 2 penstock run model.h5 --input prompts.jsonl --output answers.jsonl

exit codes: 0 all records answered; 1 wrong use or broken input, nothing lost;
            2 finished, some records have error rows
)";
}

// Messages of a rank among many say who it is.
void report(const std::exception& e, const std::optional<comm::World>& world, bool name_rank) {
  const std::string who = name_rank && world && world->size() > 1
                              ? fmt::format(" (rank {}, host {})", world->rank(), world->host())
                              : std::string();
  std::cerr << fmt::format("penstock: error: {}{}\n", e.what(), who) << std::flush;
}

}  // namespace

int main(int argc, char** argv) {
  // Outside the try block: the world must not be torn down by an exception that all ranks share.
  std::optional<comm::World> world;
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h") {
      print_help();
      return arguments.empty() ? 1 : 0;
    }
    if (arguments[0] == "--version") {
      std::cout << app::version_text() << "\n";
      return 0;
    }
    for (const Command& command : kCommands) {
      if (arguments[0] != command.name) continue;
      app::Invocation invocation{{arguments.begin() + 1, arguments.end()}, &argc, &argv, &world};
      return command.run(invocation);
    }
    throw jobs::UsageError(
        fmt::format("there is no command '{}'; penstock --help lists them", arguments[0]));
  } catch (const comm::AgreeError& e) {  // on every rank; one of them reports
    if (e.reported) report(e, world, false);
  } catch (const jobs::UsageError& e) {  // the same on every rank
    if (!world || world->rank() == 0) report(e, world, false);
  } catch (const std::exception& e) {
    report(e, world, true);
    if (world && world->size() > 1) world->abort(1);  // the others wait for this rank
  }
  return 1;
}
