#include "jobs/run.hpp"

#include <fmt/format.h>

#include <exception>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "comm/error.hpp"
#include "jobs/drivers.hpp"
#include "jobs/generate_job.hpp"
#include "jobs/replica_job.hpp"
#include "jobs/run_prediction.hpp"
#include "jobs/stay_alive.hpp"
#include "jobs/terminal.hpp"

namespace penstock::jobs {
namespace {

// Whether the job needs no stages any more; the same on all ranks.
bool is_complete(comm::Endpoint& endpoint, const std::optional<GenerateJob>& job) {
  const std::string mine = job && job->is_complete() ? "1" : "0";
  return endpoint.all().all_gather(mine, "what there is to do", endpoint.watchdog)[0] == "1";
}

// The steps that the stages are to be cut for; the same on all, since replicas are cut alike.
void expect_steps(comm::Endpoint& endpoint, const std::optional<GenerateJob>& job,
                  PipelineChoice& choice) {
  const model::StepShape mine = job ? job->expected_step() : model::StepShape{};
  const bool drawn = job && job->draws_tokens();
  const nlohmann::json text = {mine.rows, mine.sampled, mine.attended, mine.cached, drawn};
  const auto first = nlohmann::json::parse(
      endpoint.all().all_gather(text.dump(), "what steps to expect", endpoint.watchdog)[0]);
  choice.step = {first.at(0), first.at(1), first.at(2), first.at(3)};
  choice.drawn = first.at(4);
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
  FlightLog(comm::Endpoint& endpoint, const RunOptions& options, StopSignals* signals,
            std::function<void()> hurry)
      : path_(fmt::format("{}.job/flight-{:04}.log", options.output, endpoint.all().member())),
        recorder_(fmt::format("{}, {}", stage_name(endpoint),
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

// `signals`: null for one that does not listen.
PipelineTotals drive(comm::Endpoint& endpoint, StageSetup& setup, const RunOptions& options,
                     StopSignals* signals, ReplicaJob& work, Workload& workload) {
  FlightLog log(endpoint, options, signals, [&work] { work.hurry(); });
  work.set_room(setup.options);
  return run_driver(endpoint, *setup.stage, setup.options, setup.cost, workload, log.recorder());
}

// Below the summary, of the first replica. A replay may take seconds.
void tell_prediction(const StageSetup& setup, const RunOptions& options,
                     const LengthRecorder& recorder, const PipelineTotals& totals,
                     const Alive& alive) {
  if (options.quiet) return;
  std::optional<Prediction> prediction;
  try {
    stay_alive(alive,
               [&](const Alive&) { prediction = predict_run(setup, options.pipeline, recorder); });
  } catch (const std::exception& error) {  // the job is done, whatever would have been predicted
    print(fmt::format("no prediction: {}\n", error.what()));
  }
  if (prediction) print(format_predicted_run(*prediction, totals.seconds));
}

void obey(comm::Endpoint& endpoint, StageSetup& setup, const RunOptions& options,
          StopSignals& signals, bool is_own_process) {
  FlightLog log(endpoint, options, is_own_process ? &signals : nullptr, {});
  const auto stop_request = [&signals] { return signals.request(); };
  run_stage(endpoint, *setup.stage, setup.options, log.recorder(), stop_request);
  wait_for_end(endpoint, stop_request);
}

// The driver of a replica other than the first. The exit code is the first one's to say.
int help(comm::Endpoint& endpoint, StageSetup& setup, const RunOptions& options,
         StopSignals* signals, ReplicaJob& work, Drivers& drivers) {
  const PipelineTotals totals = drive(endpoint, setup, options, signals, work, work.workload());
  stay_alive([&](std::uint64_t done) { endpoint.beat(done); },
             [&](const Alive&) { work.finish(); });
  drivers.tell(work.last_status(totals));
  drivers.wait_for_end();
  drivers.dismiss_stages();
  return 0;
}

int run_one_stage(comm::Endpoint& endpoint, const comm::World& world, const Layout& layout,
                  const RunOptions& options, StopSignals& signals) {
  const bool is_driver = endpoint.control->member() == 0;
  const bool is_first = is_driver && endpoint.pipeline == 0;
  const StageDevice device =
      take_device(endpoint, options.pipeline.device, options.pipeline.link, layout);
  const Alive alive = [&](std::uint64_t done) { endpoint.beat(done); };
  Drivers drivers(endpoint, signals);
  std::optional<ReplicaJob> work;  // of a driver
  std::optional<GenerateJob> job;  // of the first
  agree_on(endpoint, "opening checkpoint, input and output", [&] {
    if (is_first) GenerateJob::check_input(options);
    if (is_driver) work.emplace(options, drivers);
    if (is_first) job.emplace(options, *work, drivers, alive);
  });
  if (is_complete(endpoint, job)) {
    return is_first ? or_fail(*job, [&] { return job->conclude(); }) : 0;
  }
  const auto loading = [&](std::uint64_t done, std::uint64_t total) {
    if (is_first) job->loading(done, total);
  };
  PipelineChoice choice = options.pipeline;
  expect_steps(endpoint, job, choice);
  StageSetup setup = is_driver ? set_up_stage(endpoint, world, layout, device, choice,
                                              work->take_checkpoint(), loading)
                               : set_up_stage(endpoint, world, layout, device, choice);
  agree_on(endpoint, "beginning the job", [&] {
    if (is_first) job->begin(setup);
  });
  if (layout.replicas > 1) {
    const auto share = [&] {
      agree_on(endpoint, "sharing the records", [&] {
        if (is_driver && !is_first) work->join(alive);
      });
      return 0;
    };
    is_first ? or_fail(*job, share) : share();
  }
  signals.take_end_signals();
  const bool is_own_process = layout.link != LinkKind::local;
  if (!is_driver) {
    obey(endpoint, setup, options, signals, is_own_process);
    return 0;
  }
  if (!is_first) {
    return help(endpoint, setup, options, is_own_process ? &signals : nullptr, *work, drivers);
  }
  return or_fail(*job, [&] {
    LengthRecorder recorder(work->workload());
    const PipelineTotals totals = drive(endpoint, setup, options, &signals, *work, recorder);
    const int code = job->finish(totals);
    drivers.end();
    drivers.dismiss_stages();
    tell_prediction(setup, options, recorder, totals, alive);
    return code;
  });
}

}  // namespace

int run_generate(const comm::World& world, const RunOptions& options, StopSignals& signals) {
  const Layout layout = choose_layout(world, options.pipeline.link, options.pipeline.stages,
                                      options.pipeline.replicas);
  return run_stages(
      world, layout,
      [&](comm::Endpoint& endpoint) {
        return run_one_stage(endpoint, world, layout, options, signals);
      },
      options.pipeline.watchdog);
}

}  // namespace penstock::jobs
