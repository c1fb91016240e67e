#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <unordered_set>

#include "comm/error.hpp"
#include "jobs/messages.hpp"
#include "jobs/stage_context.hpp"

namespace penstock::jobs {
namespace {

// How long a round through all slots takes lately.
class RoundTimes {
 public:
  // Called for each slot in turn.
  void visit(std::uint32_t slot, Ledger::Time now) {
    if (slot != 0) return;
    if (last_ != Ledger::Time{}) {
      const double round = std::chrono::duration<double>(now - last_).count();
      seconds_ = seconds_ == 0 ? round : seconds_ + (round - seconds_) * kWeight;
    }
    last_ = now;
  }
  double seconds() const { return seconds_; }  // 0: not known yet

 private:
  static constexpr double kWeight = 0.1;  // of the latest round
  Ledger::Time last_{};
  double seconds_ = 0;
};

class Driver {
 public:
  Driver(comm::Endpoint& endpoint, model::Stage& stage, const PipelineOptions& options,
         const model::StepCost& cost, Workload& workload, FlightRecorder* recorder)
      : endpoint_(endpoint),
        stage_(stage),
        options_(options),
        workload_(workload),
        scheduler_(
            {options.slots, options.max_step_tokens, options.max_sequences, options.kv_blocks},
            cost),
        context_(
            endpoint, stage, options, [this] { return pump(); }, recorder),
        under_way_(options.slots) {
    totals_.stages.resize(static_cast<std::size_t>(stages()));
    latest_.resize(totals_.stages.size());
    before_.resize(totals_.stages.size());
    busy_.resize(totals_.stages.size());
  }

  PipelineTotals run() {
    workload_.begin([this] { return context_.now(); });
    const Ledger::Time begin = context_.now();
    for (std::uint32_t slot = 0;; slot = (slot + 1) % options_.slots) {
      if (scheduler_.in_flight(slot)) collect(slot);
      keep_pace(slot);
      if (pace_ == Pace::stop) break;
      refill();
      if (scheduler_.idle() && (exhausted_ || pace_ != Pace::admit)) break;
      start(slot);
    }
    for (std::uint32_t slot = 0; slot < options_.slots; ++slot) {
      if (scheduler_.in_flight(slot)) collect(slot);
    }
    totals_.seconds = std::chrono::duration<double>(context_.now() - begin).count();
    stop();
    totals_.evictions = scheduler_.evictions();
    return std::move(totals_);
  }

 private:
  int stages() const { return endpoint_.control->size(); }

  // Whether records are still to be admitted.
  void keep_pace(std::uint32_t slot) {
    rounds_.visit(slot, context_.now());
    pace_ = workload_.pace(
        [this] { return static_cast<double>(scheduler_.rounds_needed()) * rounds_.seconds(); });
    scheduler_.set_admitting(pace_ == Pace::admit);
  }

  // Keeps enough records queued. On the ledger this is time in which no step is planned, so a
  // step's turn reads two steps' worth at most: the queue fills up while the stages compute.
  void refill() {
    const std::size_t enough = std::size_t{2} * options_.max_step_tokens;
    std::size_t read = 0;
    while (pace_ == Pace::admit && !exhausted_ && read < enough && scheduler_.wanted() > 0) {
      std::optional<Work> work = workload_.next();
      endpoint_.control->beat(1);
      if (!work) {
        exhausted_ = true;
        scheduler_.set_exhausted();
        break;
      }
      const std::uint64_t record = work->record;
      const std::size_t tokens = work->prompt.size();
      read += std::max<std::size_t>(tokens, 1);
      if (tokens == 0) continue;
      if (!scheduler_.add(std::move(*work))) {
        workload_.reject(record, fmt::format("the prompt has {} tokens; the KV memory holds {} "
                                             "(raise --kv-memory)",
                                             tokens, kv_tokens()));
      }
    }
  }

  std::uint64_t kv_tokens() const {
    return std::uint64_t{options_.kv_blocks} * model::kKvBlockTokens;
  }

  // Plans the slot's next step, tells everybody, computes the first stage's part.
  void start(std::uint32_t slot) {
    model::StepPlan plan = scheduler_.plan(slot);
    for (const std::uint64_t record : scheduler_.take_unfit()) {
      workload_.reject(record, fmt::format("prompt and answer need more than the {} tokens that "
                                           "the KV memory holds (raise --kv-memory)",
                                           kv_tokens()));
    }
    if (plan.rows() == 0) {
      if (++idle_visits_ > options_.slots && !scheduler_.idle() && !anything_in_flight()) {
        throw std::logic_error("the scheduler has records but plans nothing");
      }
      return;
    }
    idle_visits_ = 0;
    ++totals_.steps;
    totals_.work = totals_.work + model::shape_of(plan);
    for (const model::SequenceStep& s : plan.sequences) {
      if (!decoding_.contains(s.sequence)) totals_.prompt_tokens += s.rows;
      if (s.sample) decoding_.insert(s.sequence);
    }
    for (const std::uint32_t handle : plan.retired) decoding_.erase(handle);
    if (stages() > 1) {
      const auto sending = context_.scope(Share::communication);
      const std::vector<std::byte> message = plan_message(plan, context_.clock().control_arrival());
      for (int stage = 1; stage < stages(); ++stage) endpoint_.control->send(stage, message);
    }
    context_.start(plan, {});
    if (!stage_.ready()) {  // a GPU works, so reading costs it nothing
      const auto computing = context_.scope(Share::compute);
      refill();
    }
    context_.finish(plan);
    if (stages() == 1) {
      const auto ids = stage_.sampled();
      results_.emplace(plan.step, Tokens{plan.step, {}, {ids.begin(), ids.end()}});
    }
    under_way_[slot] = plan.step;
  }

  bool anything_in_flight() const {
    for (std::uint32_t slot = 0; slot < options_.slots; ++slot) {
      if (scheduler_.in_flight(slot)) return true;
    }
    return false;
  }

  // Waits for the slot's tokens and gives them to the workload.
  void collect(std::uint32_t slot) {
    const std::uint64_t step = under_way_[slot];
    const Share share = scheduler_.draining() ? Share::drain : Share::wait_downstream;
    context_.wait(share, [&] { return results_.contains(step); },
                  {[&] {
                     return fmt::format("tokens of step {} (slot {}) from {}", step, slot,
                                        endpoint_.control->describe(stages() - 1));
                   },
                   stages() - 1});
    const Tokens tokens = std::move(results_.extract(step).mapped());
    context_.arrived(share, tokens.arrival);
    for (const SampledToken& sampled : scheduler_.complete(slot, tokens.ids)) {
      ++totals_.generated_tokens;
      if (workload_.accept(sampled.record, sampled.token)) scheduler_.finish(sampled.record);
    }
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
  }

  comm::Endpoint& endpoint_;
  model::Stage& stage_;
  PipelineOptions options_;
  Workload& workload_;
  Scheduler scheduler_;
  StageContext context_;
  std::vector<std::uint64_t> under_way_;        // step of each slot in flight
  std::map<std::uint64_t, Tokens> results_;     // by step
  std::unordered_set<std::uint32_t> decoding_;  // handles whose prompt is through
  PipelineTotals totals_;
  std::vector<LedgerTotals> latest_;  // by stage
  std::vector<LedgerTotals> before_;
  std::vector<double> busy_;
  Ledger::Time next_busy_{};
  RoundTimes rounds_;
  Pace pace_ = Pace::admit;
  std::uint32_t idle_visits_ = 0;
  int stopped_ = 0;
  bool exhausted_ = false;
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
