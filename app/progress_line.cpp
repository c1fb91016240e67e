#include "app/progress_line.hpp"

#include <fmt/format.h>

#include "jobs/report.hpp"
#include "jobs/terminal.hpp"

namespace penstock::app {

using std::chrono::steady_clock;

ProgressLine::ProgressLine(std::string what)
    : what_(std::move(what)), next_(steady_clock::now() + std::chrono::milliseconds(500)) {}

ProgressLine::~ProgressLine() {
  if (open_) jobs::print("\n");
}

void ProgressLine::update(std::uint64_t done, std::uint64_t total) {
  const auto now = steady_clock::now();
  const bool terminal = jobs::is_terminal();
  if (now < next_ && !(open_ && done == total)) return;
  next_ = now + (terminal ? std::chrono::milliseconds(200) : std::chrono::seconds(10));
  const double percent =
      total == 0 ? 100.0 : 100.0 * static_cast<double>(done) / static_cast<double>(total);
  const std::string text = fmt::format("{}: {} of {} ({:.0f} %)", what_, jobs::format_bytes(done),
                                       jobs::format_bytes(total), percent);
  jobs::print(terminal ? "\r\x1b[K" + text : text + "\n");
  open_ = terminal;
}

}  // namespace penstock::app
