#include "jobs/progress.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "jobs/report.hpp"

namespace penstock::jobs {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kBarEvery{200};
constexpr seconds kFirstLine{5};
constexpr seconds kLineEvery{30};
constexpr seconds kRatesOver{15};
constexpr int kLeastBar = 10;
constexpr int kMostBar = 40;
constexpr std::size_t kMostStagesNamed = 8;

double fraction_done(const ProgressCounts& counts) {
  if (counts.records_total == 0) return 1.0;
  return std::min(
      1.0, static_cast<double>(counts.records_done) / static_cast<double>(counts.records_total));
}

// "100 %" only when all is done.
std::string percent(const ProgressCounts& counts) {
  if (counts.records_done >= counts.records_total) return "100 %";
  return fmt::format("{} %", counts.records_done * 100 / counts.records_total);
}

std::string percent_with_tenths(const ProgressCounts& counts) {
  if (counts.records_done >= counts.records_total) return "100.0 %";
  const std::uint64_t tenths = counts.records_done * 1000 / counts.records_total;
  return fmt::format("{}.{} %", tenths / 10, tenths % 10);
}

std::string rate(double per_s) {
  return per_s < 9.95 ? fmt::format("{:.1f}", per_s)
                      : format_grouped(static_cast<std::uint64_t>(per_s + 0.5));
}

// "busy 97|95|94 %"; of many stages the least and the most busy.
std::string busy_text(const std::vector<double>& busy) {
  if (busy.empty()) return "";
  const auto whole = [](double share) {
    return fmt::format("{:.0f}", 100.0 * std::clamp(share, 0.0, 1.0));
  };
  if (busy.size() > kMostStagesNamed) {
    const auto [least, most] = std::minmax_element(busy.begin(), busy.end());
    return fmt::format("busy {}-{} %", whole(*least), whole(*most));
  }
  std::string text;
  for (const double share : busy) text += (text.empty() ? "" : "|") + whole(share);
  return "busy " + text + " %";
}

}  // namespace

std::optional<ProgressMode> parse_progress_mode(std::string_view name) {
  if (name == "auto") return ProgressMode::automatic;
  if (name == "bar") return ProgressMode::bar;
  if (name == "lines") return ProgressMode::lines;
  if (name == "none") return ProgressMode::none;
  return std::nullopt;
}

ProgressMode resolve(ProgressMode mode, bool is_terminal) {
  if (mode != ProgressMode::automatic) return mode;
  return is_terminal ? ProgressMode::bar : ProgressMode::lines;
}

std::string format_bar(const ProgressView& view, int width) {
  const ProgressCounts& counts = view.counts;
  const std::string count = fmt::format("{}/{}", counts.records_done, counts.records_total);
  int left = width - static_cast<int>(count.size());
  if (left < 0) return count.substr(0, static_cast<std::size_t>(std::max(width, 0)));
  // Takes room for a part. What is less important does not take the place of one that is left out.
  bool full = false;
  const auto reserve = [&left, &full](int columns) {
    full = full || columns > left;
    if (!full) left -= columns;
    return !full;
  };
  const auto part = [&reserve](const std::string& text) {
    return !text.empty() && reserve(2 + static_cast<int>(text.size())) ? "  " + text : "";
  };
  // The most important first.
  const std::string done = part(percent(counts));
  const std::string failed =
      counts.records_failed > 0 ? part(fmt::format("{} failed", counts.records_failed)) : "";
  const std::string eta = view.eta_s ? part("ETA " + format_duration(*view.eta_s)) : "";
  const bool has_bar = reserve(kLeastBar + 4);  // two spaces, two brackets
  const std::string out = part("out " + rate(view.out_per_s) + " tok/s");
  const std::string in = part("in " + rate(view.in_per_s) + " tok/s");
  const std::string busy = part(busy_text(counts.busy));
  std::string bar;
  if (has_bar) {
    const int cells = std::min(kMostBar, kLeastBar + left);
    const auto filled = static_cast<std::size_t>(fraction_done(counts) * cells);
    bar = "  [" + std::string(filled, '#') +
          std::string(static_cast<std::size_t>(cells) - filled, '.') + "]";
  }
  return count + bar + done + failed + out + in + eta + busy;
}

std::string format_line(const ProgressView& view) {
  const ProgressCounts& counts = view.counts;
  std::string text = fmt::format("{} of {} records ({})", format_grouped(counts.records_done),
                                 format_grouped(counts.records_total), percent_with_tenths(counts));
  if (counts.records_failed > 0) {
    text += fmt::format(", {} failed", format_grouped(counts.records_failed));
  }
  text += fmt::format(", in {} tok/s, out {} tok/s, {}", rate(view.in_per_s), rate(view.out_per_s),
                      format_duration(view.elapsed_s));
  if (view.eta_s) text += ", ETA " + format_duration(*view.eta_s);
  const std::string busy = busy_text(counts.busy);
  return busy.empty() ? text : text + ", " + busy;
}

Progress::Progress(ProgressMode mode, Time start, Print print, std::function<int()> width)
    : mode_(mode),
      start_(start),
      next_(mode == ProgressMode::lines ? start + kFirstLine : start),
      print_(std::move(print)),
      width_(std::move(width)) {
  samples_.push_back({start, 0, 0});
}

bool Progress::due(Time now) const { return mode_ != ProgressMode::none && now >= next_; }

void Progress::update(const ProgressCounts& counts, Time now) {
  if (!due(now)) return;
  next_ = now + (mode_ == ProgressMode::lines ? Time(kLineEvery) : Time(kBarEvery));
  samples_.push_back({now, counts.tokens_in, counts.tokens_out});
  while (samples_.size() > 2 && samples_[1].time <= now - kRatesOver) samples_.pop_front();
  show(view(counts, now, samples_.front()));
}

void Progress::finish(const ProgressCounts& counts, Time now) {
  if (mode_ == ProgressMode::none) return;
  show(view(counts, now, {start_, 0, 0}));  // the rates of the whole run
  if (mode_ == ProgressMode::bar) print_("\n");
  mode_ = ProgressMode::none;
}

ProgressView Progress::view(const ProgressCounts& counts, Time now, const Sample& since) const {
  using Seconds = std::chrono::duration<double>;
  ProgressView view;
  view.counts = counts;
  view.elapsed_s = Seconds(now - start_).count();
  const double interval_s = Seconds(now - since.time).count();
  if (interval_s > 0) {
    view.in_per_s = static_cast<double>(counts.tokens_in - since.in) / interval_s;
    view.out_per_s = static_cast<double>(counts.tokens_out - since.out) / interval_s;
  }
  if (counts.records_done >= counts.records_total) return view;
  const std::uint64_t done_now = counts.records_done - counts.records_before;
  if (done_now > 0 && view.elapsed_s > 0) {
    view.eta_s = view.elapsed_s * static_cast<double>(counts.records_total - counts.records_done) /
                 static_cast<double>(done_now);
  }
  return view;
}

void Progress::show(const ProgressView& view) {
  if (mode_ == ProgressMode::bar) {
    // The last column stays free: some terminals wrap when it is written.
    print_("\r" + format_bar(view, width_() - 1) + "\x1b[K");
  } else {
    print_(format_line(view) + "\n");
  }
}

}  // namespace penstock::jobs
