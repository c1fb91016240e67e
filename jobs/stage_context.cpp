#include "jobs/stage_context.hpp"

#include <fmt/format.h>

#include <utility>

namespace penstock::jobs {
namespace {

// Between layers messages are moved no more often than this: a poll of the network may cost more
// than a small layer.
constexpr std::chrono::microseconds kPumpInterval{50};

}  // namespace

StageContext::StageContext(comm::Endpoint& endpoint, model::Stage& stage,
                           const PipelineOptions& options, std::function<bool()> pump)
    : endpoint_(endpoint),
      stage_(stage),
      options_(options),
      pump_(std::move(pump)),
      ledger_(steady_now()) {
  if (endpoint_.next) out_.resize(options_.slots);
}

void StageContext::wait(Share share, const std::function<bool()>& done,
                        std::function<std::string()> name) {
  if (done()) return;
  const LedgerScope scope(ledger_, share, steady_now);
  comm::Wait wait(std::move(name), options_.peer_timeout);
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
        Share::wait_downstream, [&] { return endpoint_.next->done(buffer.ticket); },
        [&] {
          return fmt::format("room for step {} (slot {}) at {}", plan.step, plan.slot,
                             endpoint_.control->describe(endpoint_.control->member() + 1));
        });
    buffer.sending = false;
  }
  return buffer;
}

void StageContext::compute(const model::StepPlan& plan, std::span<const std::byte> in) {
  OutBuffer* buffer = endpoint_.next ? &free_buffer(plan) : nullptr;
  std::span<std::byte> out;
  if (buffer != nullptr) {
    buffer->bytes.resize(plan.rows() * stage_.activation_row_bytes());
    out = buffer->bytes;
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
