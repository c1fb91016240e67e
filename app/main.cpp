#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string_view>

#include "app/commands.hpp"
#include "app/openmp_waiting.hpp"
#include "app/options.hpp"
#include "comm/error.hpp"
#include "jobs/launch.hpp"

namespace {

using namespace penstock;

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(app::Invocation&);
  bool many_ranks = false;  // works as ranks of mpirun or srun
};

constexpr std::array kCommands = {
    Command{"convert", "make a checkpoint from a Hugging Face folder or a GGUF file",
            app::convert_command},
    Command{"synth", "make a checkpoint of random weights for a model's shape", app::synth_command},
    Command{"inspect", "show what a checkpoint holds; --verify checks every byte",
            app::inspect_command},
    Command{"tokenize", "turn lines of text into token ids, and back", app::tokenize_command},
    Command{"check", "read a dataset as a run would, and tell what is wrong with it",
            app::check_command},
    Command{"plan", "find the best layout for a job, and how long it will take", app::plan_command},
    Command{"run", "answer every record of a dataset", app::run_command, true},
    Command{"bench", "measure tokens per second against this machine's limits", app::bench_command,
            true},
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
            2 finished, some records have error rows; 75 stopped early on purpose: the same
            command goes on
)";
}

// Messages of a rank among many say who it is.
void report(const std::exception& e, const std::optional<comm::World>& world, bool name_rank) {
  const std::string who = name_rank && world && world->size() > 1
                              ? fmt::format(" (rank {}, host {})", world->rank(), world->host())
                              : std::string();
  std::cerr << fmt::format("penstock: error: {}{}\n", e.what(), who) << std::flush;
}

// Each of the processes would do all of the work, and write the same files.
void refuse_ranks(const Command& command, app::Invocation& invocation) {
  if (command.many_ranks || comm::World::launched_size() <= 1) return;
  if (app::asks_for_help(invocation.arguments)) return;
  invocation.world->emplace(invocation.argc, invocation.argv);  // so that one rank reports
  throw jobs::UsageError(
      fmt::format("penstock {} works in one process, but {} were started: start it without mpirun "
                  "or srun (or with -n 1)",
                  command.name, comm::World::launched_size()));
}

int run_program(int argc, char** argv, std::optional<comm::World>& world) {
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
    refuse_ranks(command, invocation);
    return command.run(invocation);
  }
  throw jobs::UsageError(
      fmt::format("there is no command '{}'; penstock --help lists them", arguments[0]));
}

// A full disk or a closed pipe behind standard output is seen here at the latest.
void finish_output() {
  std::cout.flush();
  const int flushed = std::fflush(stdout);
  if (std::cout && flushed == 0 && std::ferror(stdout) == 0) return;
  // The cause may have been any write before.
  throw std::runtime_error("standard output cannot be written: a full disk?");
}

}  // namespace

int main(int argc, char** argv) {
  app::bound_openmp_spinning(argv);
  // Outside the try block: the world must not be torn down by an exception that all ranks share.
  std::optional<comm::World> world;
  try {
    const int code = run_program(argc, argv, world);
    finish_output();
    return code;
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
