#include "jobs/stage_context.hpp"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "comm/error.hpp"
#include "comm/members.hpp"
#include "jobs/launch.hpp"

namespace penstock::jobs {
namespace {

// Between layers messages are moved no more often than this: a poll of the network may cost more
// than a small layer.
constexpr std::chrono::microseconds kPumpInterval{50};

// When all stand still, who knows less leaves the word to others for so long.
std::chrono::seconds grace(Awaited::By by) { return std::chrono::seconds(static_cast<int>(by)); }

// So many heartbeats in a row are missed on no healthy network.
constexpr auto kManyBeats = 6 * comm::kBeatInterval;

double seconds(comm::Clock::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

std::unique_ptr<model::ActivationBuffer> make_step_buffer(const model::Stage& stage,
                                                          const PipelineOptions& options) {
  return stage.make_activations(stage.activation_bytes(options.max_step_tokens));
}

std::span<std::byte> step_bytes(const model::ActivationBuffer& buffer, const model::Stage& stage,
                                const model::StepPlan& plan) {
  const std::size_t size_bytes = stage.activation_bytes(plan.rows());
  const std::span<std::byte> bytes = buffer.bytes();
  if (size_bytes > bytes.size()) {
    throw comm::CommError(fmt::format("step {} has {} rows, {} bytes; the buffers hold {}",
                                      plan.step, plan.rows(), size_bytes, bytes.size()));
  }
  return bytes.first(size_bytes);
}

StageContext::StageContext(comm::Endpoint& endpoint, model::Stage& stage,
                           const PipelineOptions& options, std::function<bool()> pump,
                           FlightRecorder* recorder)
    : endpoint_(endpoint),
      stage_(stage),
      options_(options),
      pump_(std::move(pump)),
      recorder_(recorder),
      // Threads that compute need the cores that waiting ranks leave; GPUs do not.
      pace_(stage.compute_stream() == nullptr ? comm::Pacer::Pace::patient
                                              : comm::Pacer::Pace::prompt),
      ledger_(options.clock.now()) {
  if (stage.compute_stream() != nullptr) {
    if (endpoint_.previous) endpoint_.previous->set_compute_stream(stage.compute_stream());
    if (endpoint_.next) endpoint_.next->set_compute_stream(stage.compute_stream());
  }
  if (!endpoint_.next) return;
  out_.resize(options_.slots);
  for (OutBuffer& buffer : out_) buffer.memory = make_step_buffer(stage, options_);
}

void StageContext::wait(Share share, const std::function<bool()>& done, const Awaited& awaited) {
  if (done()) return;
  const auto in_share = scope(share);
  comm::Control& control = *endpoint_.control;
  const comm::Clock::time_point start = comm::Clock::now();
  comm::Pacer pacer(pace_, start);
  comm::Watchdog watchdog(control, endpoint_.watchdog, grace(awaited.by), start);
  bool missed_beats = false;
  while (!done()) {
    const bool arrived = pump_();
    control.beat(arrived ? 1 : 0);
    const comm::Clock::time_point now = comm::Clock::now();
    const std::optional<comm::Complaint> complaint = watchdog.look(now);
    if (!missed_beats && watchdog.most_silent().age >= kManyBeats) {
      missed_beats = true;
      note(FlightEvent::beats_missed, FlightRecorder::kNone, FlightRecorder::kNone,
           static_cast<std::uint64_t>(watchdog.most_silent().member));
    }
    // What was waited for may have come with the last messages.
    if (complaint && !done()) {
      throw comm::CommError(describe(*complaint, awaited, now - start));
    }
    arrived ? pacer.restart(now) : pacer.pause(now);
  }
  control.beat(1);
}

void StageContext::arrived(Share share, Ledger::Time arrival) {
  switch (clock().kind()) {
    case StageClock::Kind::real:
      return;
    case StageClock::Kind::rehearsal: {
      const auto in_share = scope(share);
      clock().advance_to(arrival);
      return;
    }
    case StageClock::Kind::realtime:
      wait(share, [&] { return now() >= arrival; }, {[] { return "the rehearsed time"; }});
  }
}

std::string StageContext::describe(const comm::Complaint& complaint, const Awaited& awaited,
                                   comm::Clock::duration waited) const {
  const comm::Control& control = *endpoint_.control;
  std::string text =
      fmt::format("{}: no {} for {:.1f} s", stage_name(endpoint_), awaited.name(), seconds(waited));
  if (complaint.kind == comm::Complaint::Kind::still) {
    text += fmt::format("; all stages are alive, but none has made progress for {:.1f} s",
                        seconds(complaint.age));
  } else if (complaint.member != awaited.member) {
    text += fmt::format("; {} is silent: {}", control.describe(complaint.member),
                        comm::last_word(control, complaint.member));
    return text;
  }
  if (awaited.member != Awaited::kNobody) {
    text += "; " + comm::last_word(control, awaited.member);
  }
  return text;
}

void StageContext::note(FlightEvent event, std::uint64_t step, std::uint64_t slot,
                        std::uint64_t amount) {
  if (recorder_ != nullptr) recorder_->note(event, step, slot, amount);
}

StageContext::OutBuffer& StageContext::free_buffer(const model::StepPlan& plan) {
  OutBuffer& buffer = out_[next_out_++ % out_.size()];
  if (buffer.sending) {
    const int next = endpoint_.control->member() + 1;
    wait(Share::wait_downstream, [&] { return endpoint_.next->order_compute_after(buffer.ticket); },
         {[&] {
            return fmt::format("room for step {} (slot {}) at {}", plan.step, plan.slot,
                               endpoint_.control->describe(next));
          },
          next, Awaited::By::link});
    buffer.sending = false;
  }
  return buffer;
}

void StageContext::start(const model::StepPlan& plan, std::span<const std::byte> in) {
  OutBuffer* buffer = endpoint_.next ? &free_buffer(plan) : nullptr;
  std::span<std::byte> out;
  if (buffer != nullptr) {
    out = step_bytes(*buffer->memory, stage_, plan);
  }
  {
    const auto computing = scope(Share::compute);
    const Ledger::Time begin = now();
    note(FlightEvent::forward_begin, plan.step, plan.slot, plan.rows());
    Ledger::Time last = steady_now();
    stage_.forward(plan, in, out, [&] {
      if (steady_now() - last < kPumpInterval) return;
      const auto moving = scope(Share::communication);
      pump_();
      endpoint_.control->beat(1);
      last = steady_now();
    });
    if (const auto seconds = stage_.modelled_seconds()) {
      arrived(Share::compute, begin + from_seconds(*seconds));
    }
    note(FlightEvent::forward_end, plan.step, plan.slot, plan.rows());
  }
  if (buffer != nullptr) {
    const auto sending = scope(Share::communication);
    stamp(out, plan.rows());
    buffer->ticket = endpoint_.next->send(out);
    buffer->sending = true;
    note(FlightEvent::send_posted, plan.step, plan.slot, out.size());
  }
}

void StageContext::stamp(std::span<std::byte> out, std::uint32_t rows) {
  if (clock().kind() == StageClock::Kind::real) return;
  const double bytes =
      static_cast<double>(rows) * static_cast<double>(stage_.activation_row_bytes());
  const Ledger::Time arrival = clock().activations_arrival(bytes);
  std::memcpy(out.data(), &arrival, sizeof arrival);
}

void StageContext::activations_arrived(std::span<const std::byte> in) {
  if (clock().kind() == StageClock::Kind::real) return;
  Ledger::Time arrival{};
  std::memcpy(&arrival, in.data(), sizeof arrival);
  arrived(Share::wait_upstream, arrival);
}

void StageContext::finish(const model::StepPlan& plan, comm::Ticket arrival) {
  if (stage_.ready()) return;
  if (endpoint_.previous) {
    const int previous = endpoint_.control->member() - 1;
    wait(Share::wait_upstream, [&] { return endpoint_.previous->done(arrival) || stage_.ready(); },
         {[&] {
            return fmt::format("activations of step {} (slot {}) from {}", plan.step, plan.slot,
                               endpoint_.control->describe(previous));
          },
          previous, Awaited::By::link});
  }
  wait(Share::compute, [&] { return stage_.ready(); },
       {[&] {
          return fmt::format("end of the GPU's work on step {} (slot {})", plan.step, plan.slot);
        },
        Awaited::kNobody, Awaited::By::device});
}

void StageContext::flush() {
  for (OutBuffer& buffer : out_) {
    if (!buffer.sending) continue;
    const int next = endpoint_.control->member() + 1;
    wait(Share::wait_downstream, [&] { return endpoint_.next->done(buffer.ticket); },
         {[&] {
            return fmt::format("room for the last activations at {}",
                               endpoint_.control->describe(next));
          },
          next, Awaited::By::link});
    buffer.sending = false;
  }
}

}  // namespace penstock::jobs
