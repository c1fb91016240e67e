#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <span>

#include "comm/error.hpp"
#include "jobs/messages.hpp"
#include "jobs/rounds.hpp"
#include "jobs/stage_context.hpp"

namespace penstock::jobs {
namespace {

class Driver : private StepRunner {
 public:
  Driver(comm::Endpoint& endpoint, model::Stage& stage, const PipelineOptions& options,
         const model::StepCost& cost, Workload& workload, FlightRecorder* recorder)
      : endpoint_(endpoint),
        stage_(stage),
        options_(options),
        workload_(workload),
        context_(
            endpoint, stage, options, [this] { return pump(); }, recorder),
        rounds_({options.slots, options.max_step_tokens, options.max_sequences, options.kv_blocks},
                cost, *this, workload),
        under_way_(options.slots) {
    totals_.stages.resize(static_cast<std::size_t>(stages()));
    latest_.resize(totals_.stages.size());
    before_.resize(totals_.stages.size());
    busy_.resize(totals_.stages.size());
  }

  PipelineTotals run() {
    const Ledger::Time begin = context_.now();
    rounds_.run();
    totals_.seconds = std::chrono::duration<double>(context_.now() - begin).count();
    stop();
    static_cast<StepCounts&>(totals_) = rounds_.counts();
    return std::move(totals_);
  }

 private:
  int stages() const { return endpoint_.control->size(); }

  Ledger::Time now() const override { return context_.now(); }
  void record_read() override { endpoint_.control->beat(1); }

  // Tells everybody, computes the first stage's part.
  void start(const model::StepPlan& plan, const model::StepShape& shape) override {
    totals_.work = totals_.work + shape;
    totals_.shapes.add(shape);
    if (stages() > 1) {
      const auto sending = context_.scope(Share::communication);
      const std::vector<std::byte> message = plan_message(plan, context_.clock().control_arrival());
      for (int stage = 1; stage < stages(); ++stage) endpoint_.control->send(stage, message);
    }
    context_.start(plan, {});
    if (!stage_.ready()) {  // a GPU works, so reading costs it nothing
      const auto computing = context_.scope(Share::compute);
      rounds_.refill();
    }
    context_.finish(plan);
    if (stages() == 1) {
      const auto ids = stage_.sampled();
      results_.emplace(plan.step, Tokens{plan.step, {}, {ids.begin(), ids.end()}});
    }
    under_way_[plan.slot] = plan.step;
  }

  std::span<const std::int32_t> wait_for_tokens(std::uint32_t slot, bool draining) override {
    const std::uint64_t step = under_way_[slot];
    const Share share = draining ? Share::drain : Share::wait_downstream;
    context_.wait(share, [&] { return results_.contains(step); },
                  {[&] {
                     return fmt::format("tokens of step {} (slot {}) from {}", step, slot,
                                        endpoint_.control->describe(stages() - 1));
                   },
                   stages() - 1});
    latest_tokens_ = std::move(results_.extract(step).mapped());
    context_.arrived(share, latest_tokens_.arrival);
    return latest_tokens_.ids;
  }

  void step_done() override {
    if (workload_.mark_due()) mark();
    update_busy();
    workload_.step_done(busy_);
  }

  std::uint64_t slot_of(std::uint64_t step) const {
    return static_cast<std::uint64_t>(std::find(under_way_.begin(), under_way_.end(), step) -
                                      under_way_.begin());
  }

  void mark() {
    totals_.stages[0].marks.push_back(context_.totals());
    for (int stage = 1; stage < stages(); ++stage) {
      endpoint_.control->send(stage, signal_message(MessageKind::mark));
    }
  }

  bool pump() {
    workload_.poll();
    bool arrived = false;
    while (auto message = endpoint_.control->try_receive()) {
      arrived = true;
      const auto from = static_cast<std::size_t>(message->from);
      switch (kind_of(message->bytes)) {
        case MessageKind::tokens: {
          Tokens tokens = parse_tokens(message->bytes);
          context_.note(FlightEvent::tokens_arrived, tokens.step, slot_of(tokens.step),
                        tokens.ids.size());
          results_.emplace(tokens.step, std::move(tokens));
          break;
        }
        case MessageKind::stop_request:
          workload_.stop_requested(parse_stop_request(message->bytes));
          break;
        case MessageKind::status:
          latest_.at(from) = parse_times(message->bytes).totals;
          break;
        case MessageKind::stopped:
          totals_.stages.at(from) = parse_times(message->bytes);
          ++stopped_;
          break;
        default:
          throw comm::CommError(fmt::format("{} sent a message that only a driver sends",
                                            endpoint_.control->describe(message->from)));
      }
    }
    endpoint_.control->progress();
    if (endpoint_.next) endpoint_.next->progress();
    return arrived;
  }

  // Compute's share of each stage's time since it last said so.
  void update_busy() {
    const Ledger::Time now = steady_now();
    if (now >= next_busy_) {
      next_busy_ = now + std::chrono::milliseconds(500);
      latest_[0] = context_.totals();
    }
    for (std::size_t i = 0; i < latest_.size(); ++i) {
      const LedgerTotals recent = latest_[i] - before_[i];
      if (recent.total() <= 0) continue;
      busy_[i] = recent.fraction(Share::compute);
      before_[i] = latest_[i];
    }
  }

  void stop() {
    for (int stage = 1; stage < stages(); ++stage) {
      endpoint_.control->send(stage, signal_message(MessageKind::stop));
    }
    context_.flush();
    context_.wait(Share::drain, [&] { return stopped_ == stages() - 1; }, {[&] {
                    return fmt::format("farewell from {} of the {} other stages",
                                       stages() - 1 - stopped_, stages() - 1);
                  }});
    totals_.stages[0].totals = context_.totals();
    totals_.stages[0].process = meter_.use();
  }

  comm::Endpoint& endpoint_;
  model::Stage& stage_;
  PipelineOptions options_;
  Workload& workload_;
  StageContext context_;
  Rounds rounds_;
  std::vector<std::uint64_t> under_way_;     // step of each slot in flight
  std::map<std::uint64_t, Tokens> results_;  // by step
  Tokens latest_tokens_;                     // that were taken from there
  PipelineTotals totals_;
  std::vector<LedgerTotals> latest_;  // by stage
  std::vector<LedgerTotals> before_;
  std::vector<double> busy_;
  Ledger::Time next_busy_{};
  ProcessMeter meter_;
  int stopped_ = 0;
};

}  // namespace

PipelineTotals run_driver(comm::Endpoint& endpoint, model::Stage& stage,
                          const PipelineOptions& options, const model::StepCost& cost,
                          Workload& workload, FlightRecorder* recorder) {
  stage.begin_run();
  Driver driver(endpoint, stage, options, cost, workload, recorder);
  const comm::AbortOnException abort(endpoint);  // before the driver's buffers are freed
  return driver.run();
}

}  // namespace penstock::jobs
