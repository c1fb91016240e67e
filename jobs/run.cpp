#include "jobs/run.hpp"

#include <fmt/format.h>

#include <exception>
#include <functional>
#include <optional>

#include "comm/error.hpp"
#include "jobs/generate_job.hpp"

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

// The pipeline at work. What happened last is written down if it fails.
template <class Work>
auto recorded(const comm::Endpoint& endpoint, const RunOptions& options, const Work& work) {
  const int member = endpoint.control->member();
  FlightRecorder recorder(fmt::format("stage {}, {}", member, endpoint.control->describe(member)));
  try {
    return work(recorder);
  } catch (...) {
    recorder.write(fmt::format("{}.job/flight-{:04}.log", options.output, member));
    throw;
  }
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
  StageSetup setup =
      is_driver ? set_up_stage(
                      endpoint, world, layout, device, options.pipeline, job->take_checkpoint(),
                      [&](std::uint64_t done, std::uint64_t total) { job->loading(done, total); })
                : set_up_stage(endpoint, world, layout, device, options.pipeline);
  agree_on(endpoint, "beginning the job", [&] {
    if (is_driver) job->begin(setup);
  });
  signals.take_end_signals();
  if (!is_driver) {
    recorded(endpoint, options, [&](FlightRecorder& recorder) {
      run_stage(endpoint, *setup.stage, setup.options, &recorder,
                [&signals] { return signals.request(); });
    });
    return 0;
  }
  return or_fail(*job, [&] {
    return job->finish(recorded(endpoint, options, [&](FlightRecorder& recorder) {
      return run_driver(endpoint, *setup.stage, setup.options, setup.cost, job->workload(),
                        &recorder);
    }));
  });
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
