#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "jobs/ledger.hpp"
#include "jobs/pipeline.hpp"
#include "jobs/stop_signals.hpp"
#include "model/step_plan.hpp"

// What driver and stages tell each other on the control channel: one kind byte, then the content.
// parse_* throw comm::CommError for a message of another kind or with broken content, parse_plan
// model::ModelError for the latter.
namespace penstock::jobs {

enum class MessageKind : std::uint8_t {
  plan,          // driver → all: a step plan
  mark,          // driver → all: note the ledger
  stop,          // driver → all: there will be no more plans
  tokens,        // last stage → driver: the ids a step sampled
  status,        // stage → driver, now and then: its ledger so far
  stopped,       // stage → driver, its last message: its times
  stop_request,  // stage → driver: somebody wants the job to stop, and told this rank
  all_over,      // driver → all: the other replicas are done, too
};

// Throws comm::CommError for an empty or unknown message.
MessageKind kind_of(std::span<const std::byte> message);

// `arrival` is that of StageClock::control_arrival().
struct PlanMessage {
  model::StepPlan plan;
  Ledger::Time arrival{};
};
std::vector<std::byte> plan_message(const model::StepPlan& plan, Ledger::Time arrival);
PlanMessage parse_plan(std::span<const std::byte> message);

struct Tokens {
  std::uint64_t step = 0;
  Ledger::Time arrival{};
  std::vector<std::int32_t> ids;
};
std::vector<std::byte> tokens_message(std::uint64_t step, Ledger::Time arrival,
                                      std::span<const std::int32_t> ids);
Tokens parse_tokens(std::span<const std::byte> message);

std::vector<std::byte> signal_message(MessageKind kind);  // mark, stop or all_over
std::vector<std::byte> stop_request_message(StopRequest request);
StopRequest parse_stop_request(std::span<const std::byte> message);

std::vector<std::byte> times_message(MessageKind kind, const StageTimes& times);
StageTimes parse_times(std::span<const std::byte> message);

}  // namespace penstock::jobs
