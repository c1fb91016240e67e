#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::jobs {

// --progress
enum class ProgressMode { automatic, bar, lines, none };
// Empty when `name` is none of auto, bar, lines, none.
std::optional<ProgressMode> parse_progress_mode(std::string_view name);
// What automatic means: a bar on a terminal, lines elsewhere.
ProgressMode resolve(ProgressMode mode, bool is_terminal);

// What a driver knows at a moment; tokens since the start of the run.
struct ProgressCounts {
  std::uint64_t records_done = 0;  // answered and failed
  std::uint64_t records_failed = 0;
  std::uint64_t records_total = 0;
  std::uint64_t tokens_in = 0;       // prompt tokens computed
  std::uint64_t tokens_out = 0;      // tokens generated
  std::vector<double> busy;          // by stage, share of compute lately, 0 … 1
  std::uint64_t records_before = 0;  // of those done, by earlier runs
};

// What is shown.
struct ProgressView {
  ProgressCounts counts;
  double elapsed_s = 0;
  double in_per_s = 0;          // tokens, lately
  double out_per_s = 0;         // tokens, lately
  std::optional<double> eta_s;  // nothing is known yet: empty
};

// One line without newline, at most `width` columns wide (the bar shrinks first, then the less
// important parts are left out).
std::string format_bar(const ProgressView& view, int width);
// One line for a log, without newline.
std::string format_line(const ProgressView& view);

// Decides when to show something and works out rates. One for each run, on the driver of replica
// 0. No clock of its own.
class Progress {
 public:
  using Time = std::chrono::nanoseconds;  // from any fixed origin
  // Receives text to print as it is, control characters and newlines included.
  using Print = std::function<void(std::string_view)>;

  // `mode` is resolved already; `width` tells the terminal's width at that moment.
  Progress(ProgressMode mode, Time start, Print print, std::function<int()> width);

  // Cheap when nothing is due. Bar: at most 5 times a second. Lines: after 5 s, then every 30 s.
  void update(const ProgressCounts& counts, Time now);
  bool due(Time now) const;  // whether update() would print; spares collecting the counts
  // The last bar or line, with the rates of the whole run.
  void finish(const ProgressCounts& counts, Time now);

 private:
  struct Sample {
    Time time;
    std::uint64_t in, out;  // tokens so far
  };
  ProgressView view(const ProgressCounts& counts, Time now, const Sample& since) const;
  void show(const ProgressView& view);

  ProgressMode mode_;
  Time start_;
  Time next_;
  Print print_;
  std::function<int()> width_;
  std::deque<Sample> samples_;  // of the last moments, for rates
};

}  // namespace penstock::jobs
