#include "jobs/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "jobs/ledger_advice.hpp"

namespace penstock::jobs {
namespace {

struct Unit {
  double size;
  const char* name;
};

// Three significant digits: 1.23, 12.3, 123.
std::string three_digits(double value) {
  if (value < 9.995) return fmt::format("{:.2f}", value);
  if (value < 99.95) return fmt::format("{:.1f}", value);
  return fmt::format("{:.0f}", value);
}

// `units` from large to small.
template <std::size_t N>
std::string scaled(double value, const std::array<Unit, N>& units, std::string_view unscaled) {
  for (const Unit& unit : units) {
    // 999.9996 of a unit is 1.00 of the next.
    if (value >= unit.size * 0.9995) {
      return fmt::format("{} {}", three_digits(value / unit.size), unit.name);
    }
  }
  return fmt::format("{:.0f}{}", value, unscaled);
}

// Right-aligned columns but for those marked; lines of a block share the widths.
class Table {
 public:
  void add_column(std::string title, bool left = false) {
    columns_.push_back({std::move(title), left, {}});
  }
  void add_row(const std::vector<std::string>& cells) {
    for (std::size_t i = 0; i < columns_.size(); ++i) columns_[i].cells.push_back(cells[i]);
  }
  // Leaves out the last columns when they do not fit; the first one stays.
  std::string text(int width) const {
    std::string text;
    const std::size_t rows = columns_.empty() ? 0 : columns_[0].cells.size();
    std::size_t shown = 0;
    std::size_t used = 0;
    for (const Column& column : columns_) {
      used += 2 + column.width();
      if (shown > 0 && used > static_cast<std::size_t>(std::max(width, 0))) break;
      ++shown;
    }
    for (std::size_t row = 0; row <= rows; ++row) {
      std::string line;
      for (std::size_t i = 0; i < shown; ++i) {
        const Column& column = columns_[i];
        const std::string& cell = row == 0 ? column.title : column.cells[row - 1];
        line += column.left ? fmt::format("  {:<{}}", cell, column.width())
                            : fmt::format("  {:>{}}", cell, column.width());
      }
      line.erase(line.find_last_not_of(' ') + 1);
      text += line + '\n';
    }
    return text;
  }

 private:
  struct Column {
    std::string title;
    bool left = false;
    std::vector<std::string> cells;
    std::size_t width() const {
      std::size_t longest = title.size();
      for (const std::string& cell : cells) longest = std::max(longest, cell.size());
      return longest;
    }
  };
  std::vector<Column> columns_;
};

std::string labelled(std::string_view label, std::string_view value) {
  return fmt::format("{:<11} {}\n", label, value);
}

std::string per_second(std::uint64_t count, double seconds) {
  return seconds > 0 ? fmt::format(" ({:.1f}/s)", static_cast<double>(count) / seconds) : "";
}

// What the largest process takes of its host, and in a rehearsal a stage for a step of nothing but
// messages and planning.
std::string process_line(const RunSummary& summary) {
  const std::vector<StageLedger>& stages = summary.stages;
  const auto most =
      std::max_element(stages.begin(), stages.end(), [](const auto& a, const auto& b) {
        return a.process.peak_memory_bytes < b.process.peak_memory_bytes;
      });
  if (most == stages.end() || most->process.peak_memory_bytes == 0) return "";
  std::uint64_t files = 0;
  for (const StageLedger& stage : stages) files = std::max(files, stage.process.open_files);
  std::string text = fmt::format("{} of memory at most (rank {}), {} open files",
                                 format_bytes(most->process.peak_memory_bytes), most->rank, files);
  if (!summary.rehearsal.empty()) {
    text += fmt::format(", {:.2f} ms of processor time for a stage's step",
                        1e3 * summary.thread_seconds_per_step);
  }
  return labelled("process", text);
}

// How evenly the replicas worked. Empty where there is one.
std::string replica_line(const RunSummary& summary) {
  const std::vector<double>& seconds = summary.replica_seconds;
  if (seconds.size() < 2) return "";
  const auto first = std::min_element(seconds.begin(), seconds.end());
  const int slowest = summary.slowest_replica;
  return labelled("replicas",
                  fmt::format("{}; the slowest, replica {}, worked for {}, the quickest, replica "
                              "{}, for {}",
                              seconds.size(), slowest,
                              format_duration(seconds[static_cast<std::size_t>(slowest)]),
                              first - seconds.begin(), format_duration(*first)));
}

// The sum over replicas, stage by stage.
std::vector<StageLedger> sum_by_stage(const std::vector<StageLedger>& all) {
  std::vector<StageLedger> sums;
  for (const StageLedger& one : all) {
    const auto sum = std::find_if(sums.begin(), sums.end(), [&](const StageLedger& other) {
      return other.stage == one.stage;
    });
    if (sum == sums.end()) {
      sums.push_back(one);
    } else {
      for (std::size_t i = 0; i < kShares; ++i) {
        sum->totals.seconds[i] += one.totals.seconds[i];
      }
    }
  }
  return sums;
}

// Until weights are where the device computes with them.
std::string load_rate(const StageReport& stage) {
  if (!(stage.load_seconds > 0)) return "";
  const double rate = static_cast<double>(stage.bytes_loaded) / stage.load_seconds;
  return fmt::format(", loaded in {}, {}/s", format_duration(stage.load_seconds),
                     format_bytes(static_cast<std::uint64_t>(rate)));
}

// A table of its own: with UUIDs in it the layout would not fit into 80 columns.
std::string format_gpus(const std::vector<StageReport>& stages, int width) {
  Table table;
  table.add_column("rank");
  table.add_column("GPU", true);
  table.add_column("memory");
  table.add_column("UUID", true);
  bool any = false;
  for (const StageReport& stage : stages) {
    if (stage.gpu.empty()) continue;
    any = true;
    table.add_row({std::to_string(stage.rank), stage.gpu, format_bytes(stage.gpu_memory_bytes),
                   stage.gpu_uuid});
  }
  return any ? table.text(width) : "";
}

}  // namespace

std::string format_bytes(std::uint64_t bytes) {
  constexpr std::array<Unit, 4> kUnits = {{{1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}}};
  return scaled(static_cast<double>(bytes), kUnits, " B");
}

std::string format_count(std::uint64_t count) {
  constexpr std::array<Unit, 4> kUnits = {{{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "k"}}};
  return scaled(static_cast<double>(count), kUnits, "");
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0)) return "0.0 s";
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  if (seconds < 59.5) return fmt::format("{:.0f} s", seconds);
  if (seconds > 1e9) return "years";
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t days = whole / 86400;
  const std::int64_t hours = whole / 3600 % 24;
  const std::int64_t minutes = whole / 60 % 60;
  if (days > 0) return fmt::format("{}d {:02}:{:02}", days, hours, minutes);
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes, whole % 60);
  return fmt::format("{}:{:02}", minutes, whole % 60);
}

std::string format_grouped(std::uint64_t number) {
  std::string text = std::to_string(number);
  for (std::size_t i = text.size(); i > 3; i -= 3) text.insert(i - 3, ",");
  return text;
}

std::string format_slots(std::uint32_t slots, double trip_seconds) {
  return fmt::format(
      "{} slot{}{}", slots, slots == 1 ? "" : "s",
      trip_seconds > 0 ? fmt::format(" (trip {} ms)", three_digits(1e3 * trip_seconds)) : "");
}

std::string format_header(const RunHeader& header, int width) {
  std::string text = header.version + '\n';
  text +=
      labelled("model", fmt::format("{} ({}, {} parameters, {})", header.model, header.architecture,
                                    format_count(header.parameters), header.dtype));
  text += labelled("checkpoint", fmt::format("{} ({}, digest {})", header.checkpoint,
                                             format_bytes(header.checkpoint_bytes),
                                             header.checkpoint_digest.substr(0, 12)));
  text += labelled("device", fmt::format("{}, link {}", header.device, header.link));
  text += labelled("input", fmt::format("{}, {}, {} records", header.input, header.input_format,
                                        format_grouped(header.records)));
  text += labelled("output", header.output);
  const std::string replicas =
      header.replicas == 1
          ? ""
          : fmt::format(
                "{} replicas of {} stage{}, ", header.replicas,
                header.stages.size() / static_cast<std::size_t>(header.replicas),
                header.stages.size() == static_cast<std::size_t>(header.replicas) ? "" : "s");
  text += labelled("schedule", fmt::format("{}{}, context {} tokens, KV {} tokens", replicas,
                                           format_slots(header.slots, header.trip_seconds),
                                           format_grouped(header.context_limit),
                                           format_grouped(header.kv_tokens)));
  for (const auto& [label, value] : header.more) text += labelled(label, value);

  Table table;
  table.add_column("rank");
  table.add_column("host", true);
  table.add_column("threads");
  if (header.replicas > 1) table.add_column("replica");
  table.add_column("stage");
  table.add_column("layers");
  table.add_column("weights");
  table.add_column("KV");
  table.add_column("step");
  table.add_column("read");
  for (const StageReport& stage : header.stages) {
    std::vector<std::string> cells = {std::to_string(stage.rank), stage.host,
                                      std::to_string(stage.threads)};
    if (header.replicas > 1) cells.push_back(std::to_string(stage.replica));
    cells.insert(cells.end(), {std::to_string(stage.stage),
                               fmt::format("{}-{}", stage.layer_begin, stage.layer_end - 1),
                               format_bytes(stage.weight_bytes), format_bytes(stage.kv_bytes),
                               stage.predicted, format_bytes(stage.bytes_read)});
    table.add_row(cells);
  }
  return text + table.text(width) + format_gpus(header.stages, width);
}

std::string format_reads(const std::vector<StageReport>& stages, std::uint64_t checkpoint_bytes) {
  const bool several = !stages.empty() && stages.back().replica > 0;
  std::string text;
  for (const StageReport& stage : stages) {
    text += fmt::format("{}stage {} (rank {}, host {}): read {} of the checkpoint's {} bytes{}{}\n",
                        several ? fmt::format("replica {}, ", stage.replica) : "", stage.stage,
                        stage.rank, stage.host, format_grouped(stage.bytes_read),
                        format_grouped(checkpoint_bytes),
                        stage.copy.empty() ? "" : ", " + stage.copy, load_rate(stage));
  }
  return text;
}

std::string format_summary(const RunSummary& summary, int width) {
  std::string records = format_grouped(summary.records_answered) + " answered";
  if (summary.records_failed > 0) {
    records +=
        fmt::format(", {} failed (see their error rows)", format_grouped(summary.records_failed));
  }
  std::string text;
  if (!summary.rehearsal.empty()) {
    text += labelled("REHEARSAL",
                     fmt::format("of {}: the answers are made up, times predicted; it "
                                 "took {}",
                                 summary.rehearsal, format_duration(summary.rehearsed_in)));
  }
  text += labelled("records", records);
  text += labelled(
      "time",
      fmt::format("{} of work, {} before, {} of it for loading", format_duration(summary.seconds),
                  format_duration(summary.start_seconds), format_duration(summary.load_seconds)));
  text += labelled("tokens", fmt::format("in {}{}, out {}{}", format_grouped(summary.tokens_in),
                                         per_second(summary.tokens_in, summary.seconds),
                                         format_grouped(summary.tokens_out),
                                         per_second(summary.tokens_out, summary.seconds)));
  text += labelled("output", summary.output);
  text += process_line(summary);
  text += replica_line(summary);
  const std::string step = format_step_times(summary.step);
  if (!step.empty()) text += labelled("step", step);
  if (summary.stages.empty()) return text;
  PipelineLedger run{{}, summary.slots, summary.steps, !summary.rehearsal.empty()};
  for (const StageLedger& stage : summary.stages) {
    if (stage.replica == summary.slowest_replica) run.stages.push_back(stage.totals);
  }
  return text + "time of each stage, %\n" + format_ledger(summary.stages, width) +
         format_advice(run);
}

std::string format_step_times(const StepTimes& times) {
  if (times.measured_seconds.empty()) return "";
  const auto list = [](const std::vector<double>& seconds) {
    std::string text;
    for (const double s : seconds)
      text += fmt::format("{}{:.2f}", text.empty() ? "" : " ", 1e3 * s);
    return text;
  };
  std::string text = fmt::format("{} ms of computing on each stage", list(times.measured_seconds));
  if (times.predicted_seconds.empty()) return text;
  return text + fmt::format("; predicted {}", list(times.predicted_seconds));
}

std::string format_ledger(const std::vector<StageLedger>& stages, int width) {
  const std::vector<StageLedger> rows = sum_by_stage(stages);
  const bool several = rows.size() < stages.size();
  Table table;
  table.add_column("stage");
  if (!several) table.add_column("rank");
  for (std::size_t i = 0; i < kShares; ++i) {
    std::string title(to_string(static_cast<Share>(i)));
    std::replace(title.begin(), title.end(), '_', ' ');
    table.add_column(std::move(title));
  }
  table.add_column("waits");
  table.add_column("total");
  for (const StageLedger& stage : rows) {
    std::vector<std::string> cells = {std::to_string(stage.stage)};
    if (!several) cells.push_back(std::to_string(stage.rank));
    for (std::size_t i = 0; i < kShares; ++i) {
      cells.push_back(fmt::format("{:.1f}", 100.0 * stage.totals.fraction(static_cast<Share>(i))));
    }
    cells.push_back(fmt::format("{:.1f}", 100.0 * stage.totals.waiting()));
    cells.push_back(format_duration(stage.totals.total()));
    table.add_row(cells);
  }
  return table.text(width);
}

}  // namespace penstock::jobs
