#include <fmt/format.h>

#include <deque>

#include "comm/error.hpp"
#include "jobs/messages.hpp"
#include "jobs/stage_context.hpp"

namespace penstock::jobs {
namespace {

// How often a stage tells the driver where its time goes.
constexpr std::chrono::milliseconds kStatusInterval{500};

class StageLoop {
 public:
  StageLoop(comm::Endpoint& endpoint, model::Stage& stage, const PipelineOptions& options)
      : endpoint_(endpoint),
        stage_(stage),
        context_(endpoint, stage, options, [this] { return pump(); }),
        in_(options.slots) {
    for (auto& buffer : in_) buffer = make_step_buffer(stage, options);
  }

  void run() {
    bool draining = false;
    while (true) {
      context_.wait(
          draining ? Share::drain : Share::starved, [&] { return stopped_ || !steps_.empty(); },
          [&] { return fmt::format("step plan from {}", endpoint_.control->describe(0)); });
      if (steps_.empty()) break;
      Step& next = steps_.front();
      draining = next.plan.draining;
      context_.wait(
          Share::wait_upstream,
          [&] { return endpoint_.previous->order_compute_after(next.ticket); },
          [&] {
            return fmt::format("activations of step {} (slot {}) from {}", next.plan.step,
                               next.plan.slot,
                               endpoint_.control->describe(endpoint_.control->member() - 1));
          });
      context_.start(next.plan, next.in);
      // When a GPU is done, its tokens may be with the driver, and the plan for the same slot here,
      // before this thread notices: then as many steps are queued as there are slots.
      const Step step = std::move(next);
      steps_.pop_front();
      context_.finish(step.plan, step.ticket);
      report(step.plan);
    }
    context_.flush();
    times_.totals = context_.ledger().totals(steady_now());
    endpoint_.control->send(0, times_message(MessageKind::stopped, times_));
  }

 private:
  struct Step {
    model::StepPlan plan;
    std::span<std::byte> in;
    comm::Ticket ticket = 0;
  };

  // A receive is posted as soon as the plan that announces it is here, also while an earlier step
  // is computed. At most `slots` steps are under way and they are computed in order, so the buffer
  // of the step that many plans ago is free.
  bool pump() {
    bool arrived = false;
    while (auto message = endpoint_.control->try_receive()) {
      arrived = true;
      switch (kind_of(message->bytes)) {
        case MessageKind::plan: {
          if (steps_.size() == in_.size()) {
            throw comm::CommError(fmt::format("{} has more steps under way than the {} slots",
                                              endpoint_.control->describe(0), in_.size()));
          }
          Step step{parse_plan(message->bytes), {}, 0};
          step.in = step_bytes(*in_[next_in_++ % in_.size()], stage_, step.plan);
          step.ticket = endpoint_.previous->receive(step.in);
          steps_.push_back(std::move(step));
          break;
        }
        case MessageKind::mark:
          times_.marks.push_back(context_.ledger().totals(steady_now()));
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

  void report(const model::StepPlan& plan) {
    const LedgerScope scope(context_.ledger(), Share::communication, steady_now);
    if (!endpoint_.next) endpoint_.control->send(0, tokens_message(plan.step, stage_.sampled()));
    const Ledger::Time now = steady_now();
    if (now < next_status_) return;
    next_status_ = now + kStatusInterval;
    endpoint_.control->send(
        0, times_message(MessageKind::status, {context_.ledger().totals(now), {}}));
  }

  comm::Endpoint& endpoint_;
  model::Stage& stage_;
  StageContext context_;
  std::vector<std::unique_ptr<model::ActivationBuffer>> in_;  // one for each slot
  std::size_t next_in_ = 0;
  std::deque<Step> steps_;
  StageTimes times_;
  Ledger::Time next_status_{};
  bool stopped_ = false;
};

}  // namespace

void run_stage(comm::Endpoint& endpoint, model::Stage& stage, const PipelineOptions& options) {
  stage.begin_run();
  StageLoop loop(endpoint, stage, options);
  const comm::AbortOnException abort(endpoint);  // before the loop's buffers are freed
  loop.run();
}

}  // namespace penstock::jobs
