#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/world.hpp"
#include "jobs/report.hpp"
#include "jobs/stage_setup.hpp"
#include "jobs/steady_workload.hpp"
#include "model/ops/machine_limits.hpp"

namespace penstock::jobs {

struct BenchOptions {
  PipelineChoice pipeline;
  std::vector<std::uint32_t> batches;  // sequences at a time
  std::uint32_t prompt_tokens = 128;
  std::uint32_t generated_tokens = 128;
  bool steady = false;  // a workload without end instead of batches
  bool json = false;
  std::string version;
};

// What was measured at one batch size.
struct BenchRow {
  std::uint32_t batch = 0;
  double prefill_tokens_per_s = 0;
  double decode_tokens_per_s = 0;  // while all sequences decode
  double prefill_limit = 0;        // tokens/s that the machine's own limits allow
  double decode_limit = 0;
  std::vector<StageLedger> decode_ledger;  // of the same time as decode_tokens_per_s
  StepTimes decode_step;                   // of the same time
};

// Tokens/s that limits allow: arithmetic and memory each at their full measured rate, the slower
// of the two counts; weights are read once a step, each sequence's KV once a token.
double prefill_limit(const StageSetup& setup, const model::MachineLimits& machine,
                     const BenchOptions& options, std::uint32_t batch);
double decode_limit(const StageSetup& setup, const model::MachineLimits& machine,
                    const BenchOptions& options, std::uint32_t batch);

// `rehearsal`: StageSetup's.
std::string format_bench(const std::vector<BenchRow>& rows, const model::MachineLimits& machine,
                         const BenchOptions& options, const std::string& rehearsal = "");
std::string format_steady(const SteadyResult& result, const BenchOptions& options);

// penstock bench: measures this layout and prints a table, or JSON, to standard output of stage 0.
// Collective over the world. Returns the exit code.
int run_bench(const comm::World& world, const BenchOptions& options);

}  // namespace penstock::jobs
