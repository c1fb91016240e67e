#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/link.hpp"
#include "jobs/even_sample.hpp"
#include "jobs/flight_recorder.hpp"
#include "jobs/ledger.hpp"
#include "jobs/process_use.hpp"
#include "jobs/scheduler.hpp"
#include "jobs/stage_clock.hpp"
#include "jobs/step_counts.hpp"
#include "jobs/stop_signals.hpp"
#include "jobs/workload.hpp"
#include "model/stage.hpp"

// One pipeline at work: the driver (stage 0) plans steps, every stage obeys. No wait lasts longer
// than endpoint.watchdog while a stage is silent, or while none makes progress: then
// comm::CommError says what was waited for, and of whom nothing was heard.
namespace penstock::jobs {

// Equal on all stages of a pipeline, but for the clock.
struct PipelineOptions {
  std::uint32_t slots = 1;
  std::uint32_t max_step_tokens = 512;
  std::uint32_t max_sequences = 256;  // of one slot
  std::uint32_t kv_blocks = 0;
  StageClock clock;  // as it stands when the run begins
};

// What a stage did with its time.
struct StageTimes {
  LedgerTotals totals;
  std::vector<LedgerTotals> marks;  // the ledger at each mark
  ProcessUse process{};             // when the stage had ended
};

struct PipelineTotals : StepCounts {
  double seconds = 0;                   // by the driver's clock
  model::StepShape work;                // of all steps together
  EvenSample<model::StepShape> shapes;  // of the steps
  std::vector<StageTimes> stages;
};

// Runs stage 0 until the workload is through, or its pace says to stop, then stops the other
// stages.
PipelineTotals run_driver(comm::Endpoint& endpoint, model::Stage& stage,
                          const PipelineOptions& options, const model::StepCost& cost,
                          Workload& workload, FlightRecorder* recorder = nullptr);

// Runs any other stage until the driver stops it. `stop_request` is asked in all waits and between
// layers; what it says goes to the driver.
void run_stage(comm::Endpoint& endpoint, model::Stage& stage, const PipelineOptions& options,
               FlightRecorder* recorder = nullptr, std::function<StopRequest()> stop_request = {});

}  // namespace penstock::jobs
