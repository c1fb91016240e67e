#include <fmt/format.h>

#include <deque>
#include <utility>

#include "comm/error.hpp"
#include "jobs/messages.hpp"
#include "jobs/stage_context.hpp"

namespace penstock::jobs {
namespace {

// How often a stage tells the driver where its time goes.
constexpr std::chrono::milliseconds kStatusInterval{500};

class StageLoop {
 public:
  StageLoop(comm::Endpoint& endpoint, model::Stage& stage, const PipelineOptions& options,
            FlightRecorder* recorder, std::function<StopRequest()> stop_request)
      : endpoint_(endpoint),
        stage_(stage),
        stop_request_(std::move(stop_request)),
        context_(
            endpoint, stage, options, [this] { return pump(); }, recorder),
        in_(options.slots) {
    for (auto& buffer : in_) buffer = make_step_buffer(stage, options);
  }

  void run() {
    const int previous = endpoint_.control->member() - 1;
    bool draining = false;
    while (true) {
      context_.wait(
          draining ? Share::drain : Share::starved, [&] { return stopped_ || !steps_.empty(); },
          {[&] { return fmt::format("step plan from {}", endpoint_.control->describe(0)); }, 0});
      if (steps_.empty()) break;
      Step& next = steps_.front();
      context_.arrived(draining ? Share::drain : Share::starved, next.plan_arrival);
      draining = next.plan.draining;
      context_.wait(Share::wait_upstream,
                    [&] { return endpoint_.previous->order_compute_after(next.ticket); },
                    {[&] {
                       return fmt::format("activations of step {} (slot {}) from {}",
                                          next.plan.step, next.plan.slot,
                                          endpoint_.control->describe(previous));
                     },
                     previous, Awaited::By::link});
      context_.activations_arrived(next.in);
      context_.note(FlightEvent::activations_arrived, next.plan.step, next.plan.slot,
                    next.in.size());
      context_.start(next.plan, next.in);
      // When a GPU is done, its tokens may be with the driver, and the plan for the same slot here,
      // before this thread notices: then as many steps are queued as there are slots.
      const Step step = std::move(next);
      steps_.pop_front();
      context_.finish(step.plan, step.ticket);
      for (int i = 0; i < step.marks; ++i) mark();
      report(step.plan);
    }
    context_.flush();
    times_.totals = context_.totals();
    times_.process = meter_.use();
    endpoint_.control->send(0, times_message(MessageKind::stopped, times_));
  }

 private:
  struct Step {
    model::StepPlan plan;
    std::span<std::byte> in;
    comm::Ticket ticket = 0;
    Ledger::Time plan_arrival{};
    int marks = 0;  // that came after its plan
  };

  void mark() { times_.marks.push_back(context_.totals()); }

  // A receive is posted as soon as the plan that announces it is here, also while an earlier step
  // is computed. At most `slots` steps are under way and they are computed in order, so the buffer
  // of the step that many plans ago is free.
  bool pump() {
    pass_stop_request();
    bool arrived = false;
    while (auto message = endpoint_.control->try_receive()) {
      arrived = true;
      switch (kind_of(message->bytes)) {
        case MessageKind::plan: {
          if (steps_.size() == in_.size()) {
            throw comm::CommError(fmt::format("{} has more steps under way than the {} slots",
                                              endpoint_.control->describe(0), in_.size()));
          }
          PlanMessage parsed = parse_plan(message->bytes);
          Step step{std::move(parsed.plan), {}, 0, parsed.arrival, 0};
          context_.note(FlightEvent::plan_received, step.plan.step, step.plan.slot,
                        message->bytes.size());
          step.in = step_bytes(*in_[next_in_++ % in_.size()], stage_, step.plan);
          step.ticket = endpoint_.previous->receive(step.in);
          context_.note(FlightEvent::receive_posted, step.plan.step, step.plan.slot,
                        step.in.size());
          steps_.push_back(std::move(step));
          break;
        }
        case MessageKind::mark:
          // A point of the schedule: behind the steps that were planned before it.
          if (steps_.empty()) {
            mark();
          } else {
            ++steps_.back().marks;
          }
          break;
        case MessageKind::stop:
          stopped_ = true;
          break;
        default:
          throw comm::CommError(fmt::format("{} sent a message that only a driver gets",
                                            endpoint_.control->describe(message->from)));
      }
    }
    endpoint_.control->progress();
    endpoint_.previous->progress();
    if (endpoint_.next) endpoint_.next->progress();
    return arrived;
  }

  // The driver decides what becomes of it. It may come after the driver's word that all is over.
  void pass_stop_request() {
    if (!stop_request_ || stopped_) return;
    const StopRequest request = stop_request_();
    if (request <= passed_) return;
    passed_ = request;
    context_.note(FlightEvent::signal, FlightRecorder::kNone, FlightRecorder::kNone,
                  static_cast<std::uint64_t>(request));
    endpoint_.control->send(0, stop_request_message(request));
  }

  void report(const model::StepPlan& plan) {
    const auto telling = context_.scope(Share::communication);
    if (!endpoint_.next) {
      endpoint_.control->send(
          0, tokens_message(plan.step, context_.clock().control_arrival(), stage_.sampled()));
      context_.note(FlightEvent::tokens_sent, plan.step, plan.slot, stage_.sampled().size());
    }
    const Ledger::Time now = steady_now();
    if (now < next_status_) return;
    next_status_ = now + kStatusInterval;
    endpoint_.control->send(0, times_message(MessageKind::status, {context_.totals(), {}}));
  }

  comm::Endpoint& endpoint_;
  model::Stage& stage_;
  std::function<StopRequest()> stop_request_;
  StopRequest passed_ = StopRequest::none;
  StageContext context_;
  std::vector<std::unique_ptr<model::ActivationBuffer>> in_;  // one for each slot
  std::size_t next_in_ = 0;
  std::deque<Step> steps_;
  StageTimes times_;
  ProcessMeter meter_;
  Ledger::Time next_status_{};
  bool stopped_ = false;
};

}  // namespace

void run_stage(comm::Endpoint& endpoint, model::Stage& stage, const PipelineOptions& options,
               FlightRecorder* recorder, std::function<StopRequest()> stop_request) {
  stage.begin_run();
  StageLoop loop(endpoint, stage, options, recorder, std::move(stop_request));
  const comm::AbortOnException abort(endpoint);  // before the loop's buffers are freed
  loop.run();
}

}  // namespace penstock::jobs
