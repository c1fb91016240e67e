#include "jobs/run.hpp"

#include <fmt/format.h>

#include <exception>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "comm/error.hpp"
#include "jobs/generate_job.hpp"
#include "jobs/run_prediction.hpp"
#include "jobs/stay_alive.hpp"
#include "jobs/terminal.hpp"

namespace penstock::jobs {
namespace {

// Whether the driver's job needs no stages any more; the same on all.
bool is_complete(comm::Endpoint& endpoint, const std::optional<GenerateJob>& job) {
  const std::string mine = job && job->is_complete() ? "1" : "0";
  return endpoint.control->all_gather(mine, "what there is to do", endpoint.watchdog)[0] == "1";
}

// Whether starting the same command again may go well: somebody died, or could not be heard.
bool restart_helps(const std::exception& error) {
  return dynamic_cast<const comm::CommError*>(&error) != nullptr;
}

// What comes after the job has begun: its state tells how that failed.
int or_fail(GenerateJob& job, const std::function<int()>& work) {
  try {
    return work();
  } catch (const std::exception& error) {
    job.fail(restart_helps(error));
    throw;
  }
}

// What a stage did last, in the job's folder: written when an exception ends its scope, and when
// the process is told to end, as the ranks of a launcher are when one of them has died. Such a log
// of this or an earlier run goes when the stage ends well.
class FlightLog {
 public:
  // `signals`: null for a stage that does not listen. `hurry` is called for each request.
  FlightLog(const comm::Endpoint& endpoint, const RunOptions& options, StopSignals* signals,
            std::function<void()> hurry)
      : path_(fmt::format("{}.job/flight-{:04}.log", options.output, endpoint.control->member())),
        recorder_(fmt::format("stage {}, {}", endpoint.control->member(),
                              endpoint.control->describe(endpoint.control->member()))),
        signals_(signals),
        exceptions_(std::uncaught_exceptions()) {
    if (signals_ == nullptr) return;
    signals_->on_request([this, hurry = std::move(hurry)](StopRequest request) {
      if (hurry) hurry();
      if (request >= StopRequest::terminate) recorder_.write(path_);
    });
  }
  ~FlightLog() {
    if (signals_ != nullptr) signals_->on_request({});
    if (std::uncaught_exceptions() > exceptions_) {
      recorder_.write(path_);
    } else {
      std::error_code error;  // there is none, as a rule
      std::filesystem::remove(path_, error);
    }
  }
  FlightLog(const FlightLog&) = delete;
  FlightLog& operator=(const FlightLog&) = delete;

  FlightRecorder* recorder() { return &recorder_; }

 private:
  std::string path_;
  FlightRecorder recorder_;
  StopSignals* signals_;
  int exceptions_;  // under way when this object was made
};

PipelineTotals drive(comm::Endpoint& endpoint, StageSetup& setup, const RunOptions& options,
                     StopSignals& signals, GenerateJob& job, LengthRecorder& workload) {
  FlightLog log(endpoint, options, &signals, [&job] { job.hurry(); });
  return run_driver(endpoint, *setup.stage, setup.options, setup.cost, workload, log.recorder());
}

// Below the summary. A replay may take seconds.
void tell_prediction(const StageSetup& setup, const RunOptions& options,
                     const LengthRecorder& recorder, const PipelineTotals& totals,
                     const Alive& alive) {
  if (options.quiet) return;
  std::optional<Prediction> prediction;
  stay_alive(alive,
             [&](const Alive&) { prediction = predict_run(setup, options.pipeline, recorder); });
  if (prediction) print(format_predicted_run(*prediction, totals.seconds));
}

void obey(comm::Endpoint& endpoint, StageSetup& setup, const RunOptions& options,
          StopSignals& signals, bool is_own_process) {
  FlightLog log(endpoint, options, is_own_process ? &signals : nullptr, {});
  run_stage(endpoint, *setup.stage, setup.options, log.recorder(),
            [&signals] { return signals.request(); });
}

int run_one_stage(comm::Endpoint& endpoint, const comm::World& world, const Layout& layout,
                  const RunOptions& options, StopSignals& signals) {
  const bool is_driver = endpoint.control->member() == 0;
  const StageDevice device =
      take_device(endpoint, options.pipeline.device, options.pipeline.link, layout);
  const Alive alive = [&](std::uint64_t done) { endpoint.control->beat(done); };
  std::optional<GenerateJob> job;
  agree_on(endpoint, "opening checkpoint, input and output", [&] {
    if (is_driver) job.emplace(options, signals, alive);
  });
  if (is_complete(endpoint, job)) {
    return is_driver ? or_fail(*job, [&] { return job->conclude(); }) : 0;
  }
  PipelineChoice choice = options.pipeline;
  if (is_driver) choice.step = job->expected_step();
  StageSetup setup =
      is_driver ? set_up_stage(
                      endpoint, world, layout, device, choice, job->take_checkpoint(),
                      [&](std::uint64_t done, std::uint64_t total) { job->loading(done, total); })
                : set_up_stage(endpoint, world, layout, device, choice);
  agree_on(endpoint, "beginning the job", [&] {
    if (is_driver) job->begin(setup);
  });
  signals.take_end_signals();
  if (is_driver) {
    return or_fail(*job, [&] {
      LengthRecorder recorder(job->workload());
      const PipelineTotals totals = drive(endpoint, setup, options, signals, *job, recorder);
      const int code = job->finish(totals);
      tell_prediction(setup, options, recorder, totals, alive);
      return code;
    });
  }
  obey(endpoint, setup, options, signals, layout.link != LinkKind::local);
  return 0;
}

}  // namespace

int run_generate(const comm::World& world, const RunOptions& options, StopSignals& signals) {
  const Layout layout = choose_layout(world, options.pipeline.link, options.pipeline.stages);
  return run_stages(
      world, layout,
      [&](comm::Endpoint& endpoint) {
        return run_one_stage(endpoint, world, layout, options, signals);
      },
      options.pipeline.watchdog);
}

}  // namespace penstock::jobs
