#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace penstock::app {

// Bytes done of a conversion: one changing line on a terminal, a line every ten seconds in a log.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what);
  ~ProgressLine();
  void update(std::uint64_t done, std::uint64_t total);

 private:
  std::string what_;
  std::chrono::steady_clock::time_point next_;
  bool open_ = false;  // a changing line is on the screen
};

}  // namespace penstock::app
