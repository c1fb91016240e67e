#include "jobs/messages.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>

#include "comm/error.hpp"
#include "model/error.hpp"
#include "model/step_plan_io.hpp"

namespace penstock::jobs {
namespace {

std::vector<std::byte> with_kind(MessageKind kind, const void* data, std::size_t size) {
  std::vector<std::byte> message(1 + size);
  message[0] = static_cast<std::byte>(kind);
  if (size > 0) std::memcpy(message.data() + 1, data, size);
  return message;
}

// The content behind the kind byte, which must be one that `accepted` allows.
std::span<const std::byte> content_of(std::span<const std::byte> message,
                                      std::initializer_list<MessageKind> accepted) {
  const MessageKind kind = kind_of(message);
  if (std::find(accepted.begin(), accepted.end(), kind) == accepted.end()) {
    throw comm::CommError(fmt::format("a control message of kind {} arrived where another was due",
                                      static_cast<int>(kind)));
  }
  return message.subspan(1);
}

}  // namespace

MessageKind kind_of(std::span<const std::byte> message) {
  if (message.empty() || message[0] > static_cast<std::byte>(MessageKind::all_over)) {
    throw comm::CommError("a control message of an unknown kind arrived");
  }
  return static_cast<MessageKind>(message[0]);
}

std::vector<std::byte> plan_message(const model::StepPlan& plan, Ledger::Time arrival) {
  std::vector<std::byte> bytes = model::serialize(plan);
  const auto* stamp = reinterpret_cast<const std::byte*>(&arrival);
  bytes.insert(bytes.begin(), stamp, stamp + sizeof arrival);
  return with_kind(MessageKind::plan, bytes.data(), bytes.size());
}

PlanMessage parse_plan(std::span<const std::byte> message) {
  const auto content = content_of(message, {MessageKind::plan});
  PlanMessage parsed;
  if (content.size() < sizeof parsed.arrival) throw model::ModelError("a step plan is cut short");
  std::memcpy(&parsed.arrival, content.data(), sizeof parsed.arrival);
  parsed.plan = model::deserialize(content.subspan(sizeof parsed.arrival));
  return parsed;
}

std::vector<std::byte> tokens_message(std::uint64_t step, Ledger::Time arrival,
                                      std::span<const std::int32_t> ids) {
  constexpr std::size_t kHead = sizeof step + sizeof arrival;
  std::vector<std::byte> bytes(kHead + ids.size_bytes());
  std::memcpy(bytes.data(), &step, sizeof step);
  std::memcpy(bytes.data() + sizeof step, &arrival, sizeof arrival);
  if (!ids.empty()) std::memcpy(bytes.data() + kHead, ids.data(), ids.size_bytes());
  return with_kind(MessageKind::tokens, bytes.data(), bytes.size());
}

Tokens parse_tokens(std::span<const std::byte> message) {
  Tokens tokens;
  constexpr std::size_t kHead = sizeof tokens.step + sizeof tokens.arrival;
  const auto content = content_of(message, {MessageKind::tokens});
  if (content.size() < kHead || (content.size() - kHead) % sizeof(std::int32_t) != 0) {
    throw comm::CommError("a message with sampled tokens is cut short");
  }
  std::memcpy(&tokens.step, content.data(), sizeof tokens.step);
  std::memcpy(&tokens.arrival, content.data() + sizeof tokens.step, sizeof tokens.arrival);
  const auto ids = content.subspan(kHead);
  tokens.ids.resize(ids.size() / sizeof(std::int32_t));
  if (!ids.empty()) std::memcpy(tokens.ids.data(), ids.data(), ids.size());
  return tokens;
}

std::vector<std::byte> signal_message(MessageKind kind) { return with_kind(kind, nullptr, 0); }

std::vector<std::byte> stop_request_message(StopRequest request) {
  return with_kind(MessageKind::stop_request, &request, sizeof request);
}

StopRequest parse_stop_request(std::span<const std::byte> message) {
  const auto content = content_of(message, {MessageKind::stop_request});
  if (content.size() != sizeof(StopRequest) ||
      content[0] > static_cast<std::byte>(StopRequest::stop_now)) {
    throw comm::CommError("a message that asks for the end of the job is broken");
  }
  return static_cast<StopRequest>(content[0]);
}

std::vector<std::byte> times_message(MessageKind kind, const StageTimes& times) {
  const std::string text =
      nlohmann::json{{"totals", times.totals}, {"marks", times.marks}, {"process", times.process}}
          .dump();
  return with_kind(kind, text.data(), text.size());
}

StageTimes parse_times(std::span<const std::byte> message) {
  const auto content = content_of(message, {MessageKind::status, MessageKind::stopped});
  const auto* text = reinterpret_cast<const char*>(content.data());
  try {
    const auto json = nlohmann::json::parse(text, text + content.size());
    return {json.at("totals").get<LedgerTotals>(),
            json.at("marks").get<std::vector<LedgerTotals>>(),
            json.at("process").get<ProcessUse>()};
  } catch (const nlohmann::json::exception& e) {
    throw comm::CommError(fmt::format("a message with a stage's times is broken: {}", e.what()));
  }
}

}  // namespace penstock::jobs
