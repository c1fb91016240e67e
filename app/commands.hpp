#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/world.hpp"

namespace penstock::app {

// What a command gets. Commands that run on many ranks create the world; main() owns it, so that
// it outlives an exception.
struct Invocation {
  std::vector<std::string> arguments;  // behind the command's name
  int* argc = nullptr;
  char*** argv = nullptr;
  std::optional<comm::World>* world = nullptr;
};

// Each returns the exit code.
int convert_command(Invocation& invocation);
int synth_command(Invocation& invocation);
int inspect_command(Invocation& invocation);
int tokenize_command(Invocation& invocation);
int check_command(Invocation& invocation);
int plan_command(Invocation& invocation);
int run_command(Invocation& invocation);
int bench_command(Invocation& invocation);

std::string version();  // "penstock 0.1.0"
// The same, and a line about CUDA and NCCL where the program was built with them.
std::string version_text();

}  // namespace penstock::app
