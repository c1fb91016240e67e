#include "jobs/replica_status.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "comm/error.hpp"

namespace penstock::jobs {
namespace {

using nlohmann::json;

json to_json(const PipelineTotals& totals) {
  json stages = json::array();
  for (const StageTimes& stage : totals.stages) {
    stages.push_back({{"totals", stage.totals}, {"process", stage.process}});
  }
  return {{"counts", StepCounts(totals)}, {"seconds", totals.seconds}, {"stages", stages}};
}

PipelineTotals totals_from(const json& j) {
  PipelineTotals totals;
  j.at("counts").get_to<StepCounts>(totals);
  totals.seconds = j.at("seconds");
  for (const json& stage : j.at("stages")) {
    totals.stages.push_back(
        {stage.at("totals").get<LedgerTotals>(), {}, stage.at("process").get<ProcessUse>()});
  }
  return totals;
}

}  // namespace

std::vector<std::byte> to_bytes(const ReplicaStatus& status) {
  const std::string text =
      json{{"answered", status.counts.answered},
           {"failed", status.counts.failed},
           {"partial_tokens", status.counts.partial_tokens},
           {"tokens_in", status.tokens_in},
           {"tokens_out", status.tokens_out},
           {"busy", status.busy},
           {"done", status.done},
           {"reason", status.reason},
           {"failures", status.failures},
           {"totals", to_json(status.totals)}}
          .dump(-1, ' ', false, json::error_handler_t::replace);  // records may be no UTF-8
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

ReplicaStatus parse_status(std::span<const std::byte> bytes) {
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  try {
    const json j = json::parse(text, text + bytes.size());
    ReplicaStatus status;
    status.counts = {j.at("answered"), j.at("failed"), j.at("partial_tokens")};
    status.tokens_in = j.at("tokens_in");
    status.tokens_out = j.at("tokens_out");
    status.busy = j.at("busy").get<std::vector<double>>();
    status.done = j.at("done");
    status.reason = j.at("reason");
    status.failures = j.at("failures").get<std::vector<std::string>>();
    status.totals = totals_from(j.at("totals"));
    return status;
  } catch (const json::exception& error) {
    throw comm::CommError(fmt::format("a replica's word of itself is broken: {}", error.what()));
  }
}

}  // namespace penstock::jobs
