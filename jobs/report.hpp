#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "jobs/ledger.hpp"
#include "jobs/process_use.hpp"
#include "jobs/stage_report.hpp"

// The text blocks before and after a run. Pure: structs in, text out; every line ends in a newline.
namespace penstock::jobs {

struct RunHeader {
  std::string version;  // "penstock 0.1.0"
  std::string model;    // the checkpoint's source or file name
  std::string architecture;
  std::uint64_t parameters = 0;
  std::string dtype;       // "bf16, KV bf16"
  std::string checkpoint;  // path
  std::uint64_t checkpoint_bytes = 0;
  std::string checkpoint_digest;  // hexadecimal; the first 12 digits are shown
  std::string device;             // "cpu avx512_bf16"
  std::string link;               // "mpi"
  std::string input;
  std::string input_format;  // "JSONL"
  std::uint64_t records = 0;
  std::string output;
  std::uint32_t slots = 0;
  double trip_seconds = 0;          // that the slots were reckoned with; 0: not measured
  std::uint32_t context_limit = 0;  // tokens
  std::uint64_t kv_tokens = 0;      // that the cache holds
  int replicas = 1;
  std::vector<StageReport> stages;  // in rank order
  // Further lines, label and value: ("sampling", "greedy"), …
  std::vector<std::pair<std::string, std::string>> more;
};
// Lines of the layout table that do not fit into `width` columns lose their last columns.
std::string format_header(const RunHeader& header, int width);

// "5 slots (trip 0.41 ms)"; a trip of 0 was not measured and is not shown.
std::string format_slots(std::uint32_t slots, double trip_seconds);

// A line for each stage: the bytes that its rank read of the checkpoint, exactly, and how fast.
std::string format_reads(const std::vector<StageReport>& stages, std::uint64_t checkpoint_bytes);

// One stage's time.
struct StageLedger {
  int stage = 0;
  int rank = 0;
  LedgerTotals totals;
  int replica = 0;
  ProcessUse process{};
};

// How long each stage computes for a step: the mean, and what was predicted for a step of the mean
// shape; nothing where nothing was measured before.
struct StepTimes {
  std::vector<double> measured_seconds;
  std::vector<double> predicted_seconds;
};
// "14.30 14.00 ms of computing on each stage; predicted 14.10 13.80"; empty where there was no
// step.
std::string format_step_times(const StepTimes& times);

struct RunSummary {
  std::uint64_t records_answered = 0;
  std::uint64_t records_failed = 0;
  std::uint64_t tokens_in = 0;
  std::uint64_t tokens_out = 0;
  double seconds = 0;                     // of the work, without loading
  double start_seconds = 0;               // from the start of the process to that of the work
  double load_seconds = 0;                // of these
  std::string output;                     // path
  std::vector<StageLedger> stages;        // of all replicas
  std::vector<double> replica_seconds{};  // of work, by the drivers' clocks; none: one replica
  StepTimes step{};
  std::uint32_t slots = 1;
  int slowest_replica = 0;             // which decides how long the job takes
  std::uint64_t steps = 0;             // of that one
  std::string rehearsal{};             // what of: "8 x h100-sxm, ndr"; empty for a real run
  double rehearsed_in = 0;             // real seconds
  double thread_seconds_per_step = 0;  // processor time that a stage took for a step, the mean
};
std::string format_summary(const RunSummary& summary, int width);

// The ledger as a table: a row a stage, shares in percent of its wall time. Stages of several
// replicas share a row, with the sum of their times.
std::string format_ledger(const std::vector<StageLedger>& stages, int width);

// "1.2 GB" (powers of ten), "1.36 B" parameters, "1:02:03", "12,345".
std::string format_bytes(std::uint64_t bytes);
std::string format_count(std::uint64_t count);     // 950, 1.23 k, 135 M, 8.03 B
std::string format_duration(double seconds);       // 0.4 s, 12 s, 3:05, 1:02:03, 2d 03:04
std::string format_grouped(std::uint64_t number);  // 1,234,567

}  // namespace penstock::jobs
