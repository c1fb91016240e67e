#include "jobs/stage_context.hpp"

#include <fmt/format.h>

#include <utility>

#include "comm/error.hpp"

namespace penstock::jobs {
namespace {

// Between layers messages are moved no more often than this: a poll of the network may cost more
// than a small layer.
constexpr std::chrono::microseconds kPumpInterval{50};

}  // namespace

std::unique_ptr<model::ActivationBuffer> make_step_buffer(const model::Stage& stage,
                                                          const PipelineOptions& options) {
  return stage.make_activations(options.max_step_tokens * stage.activation_row_bytes());
}

std::span<std::byte> step_bytes(const model::ActivationBuffer& buffer, const model::Stage& stage,
                                const model::StepPlan& plan) {
  const std::size_t size_bytes = plan.rows() * stage.activation_row_bytes();
  const std::span<std::byte> bytes = buffer.bytes();
  if (size_bytes > bytes.size()) {
    throw comm::CommError(fmt::format("step {} has {} rows; the buffers are made for {}", plan.step,
                                      plan.rows(), bytes.size() / stage.activation_row_bytes()));
  }
  return bytes.first(size_bytes);
}

StageContext::StageContext(comm::Endpoint& endpoint, model::Stage& stage,
                           const PipelineOptions& options, std::function<bool()> pump)
    : endpoint_(endpoint),
      stage_(stage),
      options_(options),
      pump_(std::move(pump)),
      // Threads that compute need the cores that waiting ranks leave; GPUs do not.
      pace_(stage.compute_stream() == nullptr ? comm::Wait::Pace::patient
                                              : comm::Wait::Pace::prompt),
      ledger_(steady_now()) {
  if (stage.compute_stream() != nullptr) {
    if (endpoint_.previous) endpoint_.previous->set_compute_stream(stage.compute_stream());
    if (endpoint_.next) endpoint_.next->set_compute_stream(stage.compute_stream());
  }
  if (!endpoint_.next) return;
  out_.resize(options_.slots);
  for (OutBuffer& buffer : out_) buffer.memory = make_step_buffer(stage, options_);
}

void StageContext::wait(Share share, const std::function<bool()>& done,
                        std::function<std::string()> name) {
  if (done()) return;
  const LedgerScope scope(ledger_, share, steady_now);
  comm::Wait wait(std::move(name), options_.peer_timeout, pace_);
  while (!done()) {
    if (pump_()) {
      wait.restart();
    } else if (!done()) {
      wait.pause();
    }
  }
}

StageContext::OutBuffer& StageContext::free_buffer(const model::StepPlan& plan) {
  OutBuffer& buffer = out_[next_out_++ % out_.size()];
  if (buffer.sending) {
    wait(
        Share::wait_downstream, [&] { return endpoint_.next->order_compute_after(buffer.ticket); },
        [&] {
          return fmt::format("room for step {} (slot {}) at {}", plan.step, plan.slot,
                             endpoint_.control->describe(endpoint_.control->member() + 1));
        });
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
    const LedgerScope scope(ledger_, Share::compute, steady_now);
    Ledger::Time last = steady_now();
    stage_.forward(plan, in, out, [&] {
      if (steady_now() - last < kPumpInterval) return;
      const LedgerScope moving(ledger_, Share::communication, steady_now);
      pump_();
      last = steady_now();
    });
  }
  if (buffer != nullptr) {
    const LedgerScope scope(ledger_, Share::communication, steady_now);
    buffer->ticket = endpoint_.next->send(out);
    buffer->sending = true;
  }
}

void StageContext::finish(const model::StepPlan& plan, comm::Ticket arrival) {
  if (stage_.ready()) return;
  if (endpoint_.previous) {
    wait(
        Share::wait_upstream, [&] { return endpoint_.previous->done(arrival) || stage_.ready(); },
        [&] {
          return fmt::format("activations of step {} (slot {}) from {}", plan.step, plan.slot,
                             endpoint_.control->describe(endpoint_.control->member() - 1));
        });
  }
  wait(
      Share::compute, [&] { return stage_.ready(); },
      [&] { return fmt::format("end of the GPU's work on step {}", plan.step); });
}

void StageContext::flush() {
  for (OutBuffer& buffer : out_) {
    if (!buffer.sending) continue;
    wait(
        Share::wait_downstream, [&] { return endpoint_.next->done(buffer.ticket); },
        [&] {
          return fmt::format("the last activations to be taken by {}",
                             endpoint_.control->describe(endpoint_.control->member() + 1));
        });
    buffer.sending = false;
  }
}

}  // namespace penstock::jobs
