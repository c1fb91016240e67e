#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace penstock::jobs {

struct CommandResult {
  int exit_status = 0;
  std::string out;  // at most 64 KiB of each
  std::string err;
};

// Runs a program, found by PATH, without a shell and with no standard input, and waits for it.
// `environment`: "NAME=VALUE", in place of what this process has under that name. Nothing: it
// cannot be started, was ended by a signal, or did not end within `limit`; then it is killed.
std::optional<CommandResult> run_command(const std::vector<std::string>& arguments,
                                         std::chrono::milliseconds limit,
                                         const std::vector<std::string>& environment = {});

}  // namespace penstock::jobs
